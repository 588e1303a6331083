"""Serving the core: logins, group commit, pressure."""
