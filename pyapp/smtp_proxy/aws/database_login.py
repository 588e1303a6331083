"""The login of RDS by IAM: a token in place of a password, for one host, port and user, good for 15 minutes.

RDS looks at it when a connection logs in and never again, so each connection is given one of its own: to sign costs
less than to open the connection, and none is ever too old. The host is the endpoint's own name, or the signature is
another.

The credentials behind it may be a question to the task's agent, and that blocks: one thread asks, for all connections.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor

from smtp_proxy.aws.tokens import Signer


class DatabaseLogin:
    """Tokens for databases of this process's region; `DB_IAM` asks for them."""

    def __init__(self) -> None:
        self._signer = Signer("DB_IAM", "rds-db")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database-login")

    async def token(self, host: str, port: int, user: str) -> str:
        """Raises ConfigurationError: AWS_REGION is missing; SecretUnavailable: no credentials of AWS at present."""
        query = {"Action": "connect", "DBUser": user}
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._signer.sign, f"{host}:{port}", query
        )


@functools.cache
def database_login() -> DatabaseLogin:
    """The one of this process: whoever asks the agent first asks for all."""
    return DatabaseLogin()
