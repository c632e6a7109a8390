"""Files of requests, in OpenAI's batch format, worked through by way of the gateway's socket."""
