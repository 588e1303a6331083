"""A test client for SMTP submission that knows the server from the wire alone.

The way of a mail: `message` composes it, `dial` opens a session (TCP, TLS, AUTH), `send` hands the
mail over, `batch` does so many times on a schedule, `stats` keeps what happened, `report` shows it.
Nothing is ever written to disk.
"""

__version__ = "0.1.0"
