"""Asking a service on this machine whether it is ready.

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


def ask(host: str, port: int, service: str) -> tuple[bool, str]:
    """Whether `service` is the one that answers there and is ready, and a sentence about it."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read(_ANSWER_MAX_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{service} does not answer on {host}:{port}: {error}"
    finally:
        connection.close()
    answering = _service_in(text)
    if answering != service:
        who = answering or "something that is no service of this release"
        return False, f"on {host}:{port} answers {who}, not {service}; give each service a HEALTH_PORT of its own"
    return response.status == 200, f"{service}: {text}"


def _service_in(text: str) -> str | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    service = answer.get("service") if isinstance(answer, dict) else None
    return service if isinstance(service, str) else None
