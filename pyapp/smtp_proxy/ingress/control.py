"""The control socket: how a command on this machine asks the running service for something.

A Unix socket that its owner alone may open (0600, in a directory of 0700). One connection is one question: a line of
JSON such as {"verb": "lift-ban", "address": "192.0.2.1"}. It is answered by a line of JSON, {"ok": true, ...} or
{"ok": false, "error": "why"}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from smtp_proxy.errors import ConfigurationError, SmtpProxyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

# Called with the question's fields; what it answers becomes those of the reply.
Verb: TypeAlias = "Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]"

_QUESTION_MAX_BYTES: Final = 65_536
_QUESTION_SECONDS: Final = 10.0
# unix(7): sun_path, with its final NUL.
_PATH_MAX_BYTES: Final = 107


@contextlib.asynccontextmanager
async def serve(path: Path, verbs: Mapping[str, Verb]) -> AsyncIterator[None]:
    """Answer questions while the block runs. A service that can not is told of in the log, and serves all the same."""
    try:
        listening = open_socket(path)
    except (OSError, ConfigurationError) as error:
        log.warning("no control socket: %s", error, extra={"action": "control_unavailable"})
        yield
        return
    inode = _inode(path)
    server = await asyncio.start_unix_server(
        lambda reader, writer: _answer(verbs, reader, writer), sock=listening, limit=_QUESTION_MAX_BYTES
    )
    try:
        yield
    finally:
        server.close()
        _remove(path, inode)


def open_socket(path: Path) -> socket.socket:
    """Listen at `path`, in place of a socket that was left behind.

    Raises:
        ConfigurationError: the path is too long, something else is there, or another service answers there.
        OSError: it can not be made.
    """
    if len(os.fsencode(path)) > _PATH_MAX_BYTES - len(f".{os.getpid()}"):
        raise ConfigurationError(f"the path is too long for a socket: {path}; set SMTP_CONTROL_SOCKET to a shorter one")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise ConfigurationError(f"{path} is there and is no socket; set SMTP_CONTROL_SOCKET to another path")
    if _is_answered(path):
        raise ConfigurationError(f"another service answers at {path}; set SMTP_CONTROL_SOCKET to another path")
    # Made aside and put in place whole: nobody can meet it with other rights or without someone who listens.
    made = path.with_name(f"{path.name}.{os.getpid()}")
    made.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        old = os.umask(0o177)
        try:
            listening.bind(os.fspath(made))
        finally:
            os.umask(old)
        listening.listen(16)
        listening.setblocking(False)
        made.replace(path)
    except BaseException:
        listening.close()
        made.unlink(missing_ok=True)
        raise
    return listening


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _remove(path: Path, inode: int) -> None:
    with contextlib.suppress(OSError):
        if _inode(path) == inode:  # else it is our successor's
            path.unlink()


async def _answer(verbs: Mapping[str, Verb], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_QUESTION_SECONDS):
            question = await reader.readline()
        writer.write(json.dumps(await _reply(verbs, question), ensure_ascii=False).encode() + b"\n")
        async with asyncio.timeout(_QUESTION_SECONDS):
            await writer.drain()
    except (OSError, TimeoutError, ValueError) as error:  # ValueError: the line is too long
        log.warning("a question was not answered: %s", error or "too slow", extra={"action": "control_failed"})
    finally:
        writer.close()


async def _reply(verbs: Mapping[str, Verb], question: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(question)
        verb = verbs[asked["verb"]]
    except (ValueError, KeyError, TypeError):
        return {"ok": False, "error": f'ask with {{"verb": ...}}, one of {", ".join(verbs)}'}
    try:
        return {"ok": True, **await verb(asked)}
    except SmtpProxyError as error:
        return {"ok": False, "error": str(error)}
    except Exception:
        log.exception("a question could not be answered", extra={"action": "control_failed"})
        return {"ok": False, "error": "something went wrong; the service's log says what"}
