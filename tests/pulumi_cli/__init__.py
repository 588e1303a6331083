"""Pulumi's own command line, with a language host and an `aws` that answer here."""
