"""Puts one host into its declared state: standard library only, sent to the host as text and run there as root."""
