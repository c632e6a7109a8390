"""The OpenAI-compatible gateway that every program of a host shares."""
