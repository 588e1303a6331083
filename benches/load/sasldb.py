"""A process of its own: one user into a Cyrus SASL database, as saslpasswd2 would (sasl2-bin need not be installed).

Usage: SASL_CONF_PATH=FOLDER python -m benches.load.sasldb USER PASSWORD, where FOLDER/smtpd.conf names the database.
"""

from __future__ import annotations

import ctypes
import sys

_CREATE = 1  # SASL_SET_CREATE, <sasl/sasl.h>
_OK = 0


def add(user: str, password: str) -> None:
    """Raises OSError: no library, or it refused."""
    sasl = ctypes.CDLL("libsasl2.so.2")
    connection = ctypes.c_void_p()
    name, _, realm = user.partition("@")
    secret = password.encode()
    steps = (
        lambda: sasl.sasl_server_init(None, b"smtpd"),
        lambda: sasl.sasl_server_new(
            b"smtp", b"localhost", realm.encode() or None, None, None, None, 0, ctypes.byref(connection)
        ),
        lambda: sasl.sasl_setpass(connection, name.encode(), secret, len(secret), None, 0, _CREATE),
    )
    for number, step in enumerate(steps):
        if (code := step()) != _OK:
            raise OSError(f"libsasl2 refused step {number + 1} of {len(steps)}: {code}")


if __name__ == "__main__":
    add(*sys.argv[1:])
