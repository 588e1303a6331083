"""What a signature costs, and whether two threads sign faster than one: `python -m benches.dkim`."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from smtp_proxy.delivery import dkim

_HEADER = b"From: a@example.com\r\nTo: b@x.example\r\nSubject: hi\r\nDate: x\r\nMessage-ID: <a@b>\r\n\r\n"
_LINE = b"Hello  world, this is a line of text.\r\n"


def seconds_of(work: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def main() -> None:
    rsa = dkim.SigningKey("example.com", "r", generate_private_key(65537, 2048))
    ed25519 = dkim.SigningKey("example.com", "e", Ed25519PrivateKey.generate())
    message = _HEADER + _LINE * 105
    print(f"Python {platform.python_version()}, {platform.machine()}; message of {len(message)} bytes")
    for name, keys in (("rsa", [rsa]), ("ed25519", [ed25519]), ("both", [rsa, ed25519])):
        print(f"{name:8} {seconds_of(lambda keys=keys: dkim.sign(message, keys, 1), 500) * 1e3:.3f} ms")  # type: ignore[misc]
    large = _LINE * 600_000
    print(f"body of {len(large) / 1e6:.0f} MB: {seconds_of(lambda: dkim.hash_body(large), 1):.3f} s")
    one = seconds_of(lambda: rsa.sign(b"x"), 1000)
    threads = [threading.Thread(target=seconds_of, args=(lambda: rsa.sign(b"x"), 500)) for _ in range(2)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"RSA alone {one * 1e3:.3f} ms; in two threads {(time.perf_counter() - began):.3f} ms each")


if __name__ == "__main__":
    main()
