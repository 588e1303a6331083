"""smtp-proxy: a self-hosted, multi-tenant SMTP submission platform."""

__version__ = "0.1.0"
