"""Concurrency-controlled client and local gateway for OpenAI-compatible AI APIs."""

__version__ = "0.1.0"
