"""Traces: spans of OpenTelemetry's GenAI conventions, sent by OTLP where that is asked for."""
