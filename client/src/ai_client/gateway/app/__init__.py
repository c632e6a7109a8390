"""The ASGI application: who calls, what is asked, the answer passed on."""
