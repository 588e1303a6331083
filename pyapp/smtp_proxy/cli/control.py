"""Asking the running SMTP service through its control socket (`ingress.control` has the other end)."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from smtp_proxy.errors import CertificateProblem, ControlUnreachable, SmtpProxyError

# A reload takes as long as a handshake with every certificate.
_TIMEOUT_SECONDS = 30.0


def ask(
    path: Path, verb: str, *, refusal: type[SmtpProxyError] = CertificateProblem, **arguments: object
) -> dict[str, Any]:
    """One question; the fields of its answer.

    Raises:
        ControlUnreachable: nobody answers there, or nothing that makes sense.
        refusal: the service says no, and why.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_TIMEOUT_SECONDS)
            asking.connect(os.fspath(path))
            asking.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            with asking.makefile("rb") as answering:
                answer = json.loads(answering.readline())
            ok = answer["ok"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ControlUnreachable(
            f"{_said(error)} at {path}; is `smtp-proxy serve smtp` running, and are SMTP_PROXY_DATA_DIR and "
            "SMTP_CONTROL_SOCKET here what they are there?"
        ) from error
    if not ok:
        raise refusal(str(answer.get("error")))
    return dict(answer)


def _said(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "there is no control socket"
        case ConnectionRefusedError():
            return "no service answers any more"
        case PermissionError():
            return "this user may not ask"
        case TimeoutError():
            return "no answer came in time"
        case OSError():
            return f"asking failed ({error.strerror or error})"
        case _:
            return "no sense was in the answer"
