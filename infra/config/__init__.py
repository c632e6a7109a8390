"""A stack's configuration: schema, how it is loaded, what no stack may do."""
