"""The HTTP API; see README.md."""
