"""Postgres, the truth: every accepted message, its deliveries and attempts."""
