"""Certificates of the fleet as files: checked, written whole, and kept in step with the store."""
