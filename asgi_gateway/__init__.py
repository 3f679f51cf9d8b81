"""A plugin-oriented ASGI middleware kit for API gateways."""

__version__ = "0.1.0"
