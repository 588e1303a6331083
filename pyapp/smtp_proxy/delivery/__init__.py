"""Handing an envelope to its next hop; never touches the store."""
