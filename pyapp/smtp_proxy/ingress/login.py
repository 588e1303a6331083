"""Answers logins: at once what is known, and beside the loop what argon2 has to find out.

A session waits for its login and for nobody else's: each slow one is a task of its own. How many may run is the
checker's business. With a good one the core is told for how long it may answer the same by itself, so that only the
first of many connections of one application comes here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smtp_proxy.core import Keep, LoginRequest, LoginVerdict
    from smtp_proxy.ingress.ports import CertificateChecker, Checker, Logins, LoginSource
    from smtp_proxy.tenants.logins import Verdict

log = logging.getLogger(__name__)


class LoginDesk:
    """Takes logins from the core and answers them."""

    def __init__(self, source: LoginSource, checker: Checker, certificates: CertificateChecker | None = None) -> None:
        self._source = source
        self._checker = checker
        self._certificates = certificates
        self._checks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer login after login; for ever."""
        try:
            while True:
                logins = await self._source.next_logins()
                if self._are_known(logins):
                    await self._answer(logins)  # Does not wait for anything.
                else:
                    self._answer_later(logins)
        finally:
            for check in self._checks:
                check.cancel()

    def _are_known(self, logins: Logins) -> bool:
        return all(self._known(request) is not None for request in logins.requests())

    def _known(self, request: LoginRequest) -> Verdict:
        if len(request) == 3:
            return self._checker.cached(*request)
        username, fingerprint, _, address = request
        return self._certificates.cached(username, fingerprint, address) if self._certificates is not None else None

    async def _check(self, request: LoginRequest) -> Verdict:
        if len(request) == 3:
            return await self._checker.check(*request)
        return await self._certificates.check(*request) if self._certificates is not None else None

    def _keep(self, request: LoginRequest) -> Keep | None:
        # Whose a certificate is, is asked each time: few log in by one.
        return self._checker.keep(request[0], request[1]) if len(request) == 3 else None

    def _answer_later(self, logins: Logins) -> None:
        check = asyncio.create_task(self._answer(logins), name="login")
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _answer(self, logins: Logins) -> None:
        try:
            requests = logins.requests()
            verdicts = [await self._check(request) for request in requests]
            kept = [
                self._keep(request) if verdict else None for request, verdict in zip(requests, verdicts, strict=True)
            ]
            logins.answer([_verdict(verdict) for verdict in verdicts], kept)
        except Exception:
            # The session hears 454; the next one may fare better.
            log.exception("a login could not be checked", extra={"action": "login_failed"})
            logins.answer([None] * len(logins.requests()))


def _verdict(verdict: Verdict) -> LoginVerdict:
    if verdict is None or verdict is False:
        return verdict
    return verdict.tenant_id.bytes, verdict.credential_id.bytes, verdict.username, verdict.senders
