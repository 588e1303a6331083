"""Asking a service on this machine whether it is ready, or whether it is alive.

Containers do so every few seconds, so this loads next to nothing.
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

_TIMEOUT_SECONDS = 4.0
_ANSWER_MAX_BYTES = 65_536
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where such a listener is reached from here


def ask_service(settings: Settings, service: str) -> tuple[bool, str]:
    """As `ask`, where the settings say that it listens (HEALTH_PORT is not 0)."""
    return ask(_ANY.get(settings.health_host, settings.health_host), settings.health_port, service)


def ask_alive(settings: Settings, service: str) -> tuple[bool, str]:
    """Whether its event loop turns, whatever Postgres does: what is replaced then is no better afterwards."""
    host, port = _ANY.get(settings.health_host, settings.health_host), settings.health_port
    status, text = _get(host, port, "/healthz")
    return status == 200, f"{service}: {text}" if status else f"{service} does not answer on {host}:{port}: {text}"


def ask(host: str, port: int, service: str) -> tuple[bool, str]:
    """Whether `service` is the one that answers there and is ready, and a sentence about it."""
    status, text = _get(host, port, "/readyz")
    if not status:
        return False, f"{service} does not answer on {host}:{port}: {text}"
    answering = _service_in(text)
    if answering != service:
        who = answering or "something that is no service of this release"
        return False, f"on {host}:{port} answers {who}, not {service}; give each service a HEALTH_PORT of its own"
    return status == 200, f"{service}: {text}"


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    """Status and body; 0 and the reason where nothing answers."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_MAX_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def _service_in(text: str) -> str | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    service = answer.get("service") if isinstance(answer, dict) else None
    return service if isinstance(service, str) else None
