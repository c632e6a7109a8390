"""One hash-chained line for every API call."""
