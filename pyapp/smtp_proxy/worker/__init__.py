"""Claim, load, deliver, record; and the sweeper for what the stream lost."""
