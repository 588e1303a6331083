"""Amazon SES, API v2: SendEmail with the message as it is.

SES puts its own return path on what it sends, so bounces come to SES and not to our reverse-path. The results speak the
language of SMTP, with the codes that the SMTP interface of SES has for the same: 250 with the message id, 454 for "too
fast", 554 for "no".

    our own pace, after it said "too fast"    postponed: no attempt, and no news of SES
    too fast, quota, paused, out of order     deferred, and another candidate may be asked
    our keys, our rights, our settings        deferred, and an error in the log: the operator's to mend
    two DKIM-Signature fields                 the same: ours, which `dkim` of the route leaves out, or the message's own
    the message or its sender                 refused
    no answer to a call that went out         unknown: it may have been sent

boto3 blocks, so each call has a thread of the provider's own, as many as the route has connections.
"""

from __future__ import annotations

import asyncio
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final

import boto3
import idna
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NotConnected

from smtp_proxy.delivery.provider import Offered
from smtp_proxy.delivery.providers.pace import FleetPace
from smtp_proxy.delivery.reply import printable
from smtp_proxy.delivery.rules import rule_for
from smtp_proxy.model.attempt import Kind, Outcome, RecipientResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from smtp_proxy.clock import Clock
    from smtp_proxy.delivery.transport import Ledger
    from smtp_proxy.stream.paces import Paces

log = logging.getLogger(__name__)

RECIPIENTS_PER_CALL: Final = 50  # SendEmail, Destination
MESSAGE_BYTES: Final = 40 * 1024 * 1024  # SendEmail, after base64 it may not be more
# A message that would have to wait for longer goes back to the queue, so that it holds no turn of the worker.
_PATIENCE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means for the recipients it is about."""

    outcome: Outcome
    code: int
    enhanced_code: str
    kind: Kind
    turned_away: bool = False
    operator: bool = False
    slow_down: bool = False
    postponed_seconds: float = 0.0  # nothing was asked: no attempt, and no news of SES


_TOO_FAST: Final = Verdict(Outcome.DEFERRED, 454, "4.7.0", Kind.QUOTA, turned_away=True, slow_down=True)
_LATER: Final = Verdict(Outcome.DEFERRED, 451, "4.3.0", Kind.SOFT, turned_away=True)
_STOPPED: Final = Verdict(Outcome.DEFERRED, 454, "4.7.0", Kind.BLOCK, turned_away=True, operator=True)
_NOT_ALLOWED: Final = Verdict(Outcome.DEFERRED, 454, "4.7.0", Kind.AUTH, turned_away=True, operator=True)
_MISCONFIGURED: Final = Verdict(Outcome.DEFERRED, 451, "4.3.5", Kind.LOCAL, turned_away=True, operator=True)
_UNREACHABLE: Final = Verdict(Outcome.DEFERRED, 0, "", Kind.NETWORK, turned_away=True)
_NO_ANSWER: Final = Verdict(Outcome.UNKNOWN, 0, "", Kind.NETWORK)
_REFUSED: Final = Verdict(Outcome.REFUSED, 554, "5.7.1", Kind.BLOCK)
_UNVERIFIED: Final = Verdict(Outcome.REFUSED, 554, "5.7.1", Kind.POLICY)
_MALFORMED: Final = Verdict(Outcome.REFUSED, 554, "5.6.0", Kind.POLICY)
# It would be taken if a setting of ours were another; a rule of replies.toml says which. SES is well, and stays open.
_TO_MEND: Final = Verdict(Outcome.DEFERRED, 451, "4.6.0", Kind.LOCAL)

# Errors of SendEmail, and those that all of AWS has, by code.
_BY_CODE: Final = {
    "TooManyRequestsException": _TOO_FAST,
    "Throttling": _TOO_FAST,
    "ThrottlingException": _TOO_FAST,
    "RequestLimitExceeded": _TOO_FAST,
    "LimitExceededException": _TOO_FAST,
    "SendingPausedException": _STOPPED,
    "AccountSuspendedException": _STOPPED,
    "MailFromDomainNotVerifiedException": _MISCONFIGURED,
    "NotFoundException": _MISCONFIGURED,
    "MessageRejected": _REFUSED,
    "MessageRejectedException": _REFUSED,
    "BadRequestException": _MALFORMED,
    "AccessDeniedException": _NOT_ALLOWED,
    "AccessDenied": _NOT_ALLOWED,
    "UnrecognizedClientException": _NOT_ALLOWED,
    "InvalidClientTokenId": _NOT_ALLOWED,
    "InvalidSignatureException": _NOT_ALLOWED,
    "SignatureDoesNotMatch": _NOT_ALLOWED,
    "ExpiredTokenException": _NOT_ALLOWED,
    "ExpiredToken": _NOT_ALLOWED,
    "OptInRequired": _NOT_ALLOWED,
}

# Of errors that no code explains. Another 5xx, a gateway's time-out above all, may come after the message was taken.
_BY_STATUS: Final = {429: _TOO_FAST, 403: _NOT_ALLOWED, 503: _LATER}


@dataclass(frozen=True, slots=True)
class SesAccount:
    """Where and as whom."""

    region: str
    endpoint_url: str | None = None
    configuration_set: str | None = None
    from_arn: str | None = None
    max_rate_per_second: float = 14.0  # recipients, over the fleet
    connections: int = 16
    connect_timeout_seconds: float = 30.0
    timeout_seconds: float = 60.0


class SesClient:
    """One account in one region: its threads, and its pace, which all tenants and workers share."""

    def __init__(self, account: SesAccount, clock: Clock, paces: Paces | None = None) -> None:
        self.account = account
        self.remote = f"email.{account.region}.amazonaws.com:443"
        # The limits are the account's in its region, whichever routes lead there.
        name = f"ses {account.region} {account.endpoint_url or ''}".rstrip()
        self.pace = FleetPace(name, account.max_rate_per_second, clock, paces)
        self._threads = ThreadPoolExecutor(account.connections, thread_name_prefix="ses")
        self._api: Any = boto3.session.Session().client(
            "sesv2",
            region_name=account.region,
            endpoint_url=account.endpoint_url,
            config=Config(
                # Whether to try again is ours to say: a call that was repeated may have sent twice.
                retries={"total_max_attempts": 1},
                max_pool_connections=account.connections,
                connect_timeout=account.connect_timeout_seconds,
                read_timeout=account.timeout_seconds,
            ),
        )

    async def send(self, request: dict[str, Any]) -> str:
        """SendEmail; the message id. Raises what boto3 raises."""
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, lambda: self._api.send_email(**request))
        return str(answer["MessageId"])

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Ses:
    """See `delivery.provider.Provider`; `tenant_name` is that of the SES tenant, if there is one."""

    def __init__(
        self, client: SesClient, tenant_name: str | None = None, chance: Callable[[], float] = random.random
    ) -> None:
        self._client = client
        self._chance = chance
        self._tenant_name = tenant_name

    async def offer(self, raw: bytes, recipients: Sequence[tuple[int, str]], ledger: Ledger) -> Offered:
        """Offer in calls of at most 50 recipients; what one call says is about its own."""
        offered = Offered()
        if len(raw) > MESSAGE_BYTES:
            text = f"the message has {len(raw)} octets, SES takes {MESSAGE_BYTES}"
            self._answer(offered, recipients, Verdict(Outcome.REFUSED, 0, "5.3.4", Kind.LOCAL), text)
            return offered
        fit = self._fit(recipients, offered)
        for start in range(0, len(fit), RECIPIENTS_PER_CALL):
            part = fit[start : start + RECIPIENTS_PER_CALL]
            verdict, text = await self._send(raw, part, ledger)
            self._answer(offered, [(number, "") for number, _ in part], verdict, text)
            if verdict.turned_away:
                rest = fit[start + RECIPIENTS_PER_CALL :]
                self._answer(offered, rest, verdict, text)
                offered.turned_away = start == 0
                break
        return offered

    async def close(self) -> None:
        await self._client.close()

    # -- details

    def _fit(self, recipients: Sequence[tuple[int, str]], offered: Offered) -> list[tuple[int, str]]:
        """With domains as SES takes them; an address that SES can not have is refused here."""
        fit = []
        for number, address in recipients:
            local, _, domain = address.rpartition("@")
            try:
                fit.append((number, f"{local.encode('ascii').decode()}@{_ascii(domain)}"))
            except (UnicodeError, idna.IDNAError):
                text = "SES takes no address that is not ASCII before its @"
                self._answer(offered, [(number, address)], Verdict(Outcome.REFUSED, 0, "5.6.7", Kind.LOCAL), text)
        return fit

    async def _send(self, raw: bytes, part: Sequence[tuple[int, str]], ledger: Ledger) -> tuple[Verdict, str]:
        client = self._client
        if (wait := await client.pace.take(len(part), _PATIENCE_SECONDS)) > _PATIENCE_SECONDS:
            # Asking before its time would only make it worse. Not all that wait come back in the same moment.
            later = wait * (1 + self._chance() / 2)
            kept_back = Verdict(Outcome.DEFERRED, 0, "", Kind.LOCAL, turned_away=True, postponed_seconds=later)
            return kept_back, "SES: sending slower for now"
        if wait:
            await asyncio.sleep(wait)
        if not await ledger.sending([number for number, _ in part], client.remote):
            return Verdict(Outcome.DEFERRED, 0, "", Kind.LOCAL), "the claim was lost before it was sent"
        try:
            message_id = await client.send(self._request(raw, [address for _, address in part]))
        except (ClientError, BotoCoreError) as error:
            return self._failed(error)
        client.pace.went_well()
        return Verdict(Outcome.DELIVERED, 250, "2.0.0", Kind.ACCEPTED), f"Ok {message_id}"

    def _request(self, raw: bytes, addresses: list[str]) -> dict[str, Any]:
        account = self._client.account
        request: dict[str, Any] = {
            "Destination": {"ToAddresses": addresses},
            "Content": {"Raw": {"Data": raw}},
            "ConfigurationSetName": account.configuration_set,
            "FromEmailAddressIdentityArn": account.from_arn,
            "TenantName": self._tenant_name,
        }
        return {name: value for name, value in request.items() if value is not None}

    def _failed(self, error: ClientError | BotoCoreError) -> tuple[Verdict, str]:
        verdict, text = verdict_of(error)
        if verdict.slow_down:
            self._client.pace.too_fast()
        if verdict.operator:
            log.error("%s: %s", self._client.remote, text, extra={"action": "ses_refused"})
        return verdict, text

    def _answer(self, offered: Offered, recipients: Sequence[tuple[int, str]], verdict: Verdict, text: str) -> None:
        for number, _ in recipients:
            offered.results[number] = RecipientResult(
                number,
                verdict.outcome,
                verdict.code,
                verdict.enhanced_code,
                text,
                self._client.remote,
                verdict.kind,
                postponed_seconds=verdict.postponed_seconds,
            )


def verdict_of(error: ClientError | BotoCoreError) -> tuple[Verdict, str]:
    """What an error of boto3 means, and a line for the record."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        said = printable(str(error.response.get("Error", {}).get("Message", "")).encode(), 500)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
        return _of_answer(code, said, status), f"SES: {code}: {said}"
    text = f"SES: {printable(str(error).encode(), 300)}"
    if isinstance(error, NoCredentialsError):
        return _NOT_ALLOWED, text
    if isinstance(error, NotConnected) and (not isinstance(error, SSLError) or _in_handshake(error)):
        return _UNREACHABLE, text
    if isinstance(error, HTTPClientError | SSLError):
        return _NO_ANSWER, f"{text}, after the call was made, so whether it was taken is unknown"
    return _MISCONFIGURED, text


def _in_handshake(error: BaseException) -> bool:
    """Whether TLS failed before anything was asked. Its error has one name for that and for a broken answer."""
    cause: BaseException | None = error
    while cause is not None:
        if any(frame.f_code.co_name == "do_handshake" for frame, _ in walk_tb(cause.__traceback__)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _of_answer(code: str, said: str, status: int) -> Verdict:
    verdict = _BY_CODE.get(code)
    if verdict is _MALFORMED and (rule := rule_for(verdict.code, "", said)) is not None and rule.advice:
        return _TO_MEND
    if verdict is _REFUSED and "not verified" in said:
        return _UNVERIFIED
    if verdict is None:
        verdict = _BY_STATUS.get(status, _NO_ANSWER if status >= 500 else _LATER)
    return verdict


def _ascii(domain: str) -> str:
    return domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
