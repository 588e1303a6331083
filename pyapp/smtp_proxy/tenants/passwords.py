"""Passwords: argon2id in a few threads of low priority, so that a storm of logins can not starve mail.

Not here: who may log in (`logins.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import string
import threading
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from smtp_proxy.telemetry.metrics import PASSWORD_HASHES

# OWASP Password Storage Cheat Sheet, argon2id: 19 MiB, two passes, one lane. † some 25 ms of one core.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# The hash of a password nobody has, with the same parameters: checked where there is no user, so that the time an
# answer takes does not tell whether there is one.
DUMMY_HASH = "$argon2id$v=19$m=19456,t=2,p=1$tQLM+chKkFdXa+hLTUz3jQ$I/pNhJf+L7i9pkR8Z9Lyiw7lBGSP+A81Dclv2zzKXtI"
_NICE = 10
_GENERATED = 32  # 190 bits
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits


def generate_password() -> str:
    """A new password of letters and digits, too long to guess, that no program takes for an option."""
    return "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(_GENERATED))


class Passwords:
    """The bounded pool in which passwords are hashed and verified."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2", initializer=_be_nice)

    async def hash(self, password: str) -> str:
        """In PHC format, with a fresh salt."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, _HASHER.hash, password)

    async def verify(self, password_hash: str, password: str) -> bool:
        """Does the password match? False for a hash that is none."""
        PASSWORD_HASHES.inc()
        return await asyncio.get_running_loop().run_in_executor(self._pool, _verify, password_hash, password)

    def close(self) -> None:
        """Let the threads go; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False


def _be_nice() -> None:
    """On Linux a thread has a priority of its own; elsewhere this would slow the whole process, so leave it."""
    if os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
