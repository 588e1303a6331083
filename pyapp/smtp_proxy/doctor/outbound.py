"""The ways out: the smarthost, port 25 where mail goes by MX, and SES's quota."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from smtp_proxy.delivery.route import tls_context
from smtp_proxy.delivery.routing.file import RouteRule, RoutesFile, read_routes
from smtp_proxy.doctor.dialogue import NotSmtp, connected
from smtp_proxy.doctor.finding import Finding, failed, ok, skipped, warning
from smtp_proxy.errors import SmtpProxyError

if TYPE_CHECKING:
    from smtp_proxy.config import Settings

# Who takes mail at port 25 for sure. Asked for its greeting alone.
_PORT_25: Final = ("gmail-smtp-in.l.google.com", 25)
_QUOTA_SHARE: Final = 0.8
_SES_CONNECT_SECONDS: Final = 5.0
_SES_READ_SECONDS: Final = 10.0


def routes_of(settings: Settings) -> RoutesFile:
    """Those of ROUTES_FILE; without it none, and the smarthost takes all. Raises ConfigurationError."""
    return RoutesFile() if settings.routes_file is None else read_routes(settings.routes_file)


async def examine_port_25(settings: Settings, host: tuple[str, int] | None) -> list[Finding]:
    """Whether this network lets us out to port 25, where mail needs that."""
    by_mx = [name for name, rule in routes_of(settings).routes.items() if rule.kind == "mx"]
    if not by_mx and host is None:
        return [skipped("port 25: no route goes by MX", "--port-25 HOST:PORT has it tried all the same")]
    return [await asyncio.to_thread(_port_25, host or _PORT_25)]


async def examine_smarthost(settings: Settings) -> list[Finding]:
    """The smarthost of the settings, as far as before the login."""
    if settings.routes_file is not None:
        return [skipped("the smarthost of the settings: ROUTES_FILE says where mail goes")]
    return await asyncio.to_thread(lambda: list(_smarthost(settings)))


async def examine_ses(settings: Settings) -> list[Finding]:
    """Each account that a route names: whether it may send, to anybody, and how much is left of today."""
    accounts = [(name, rule) for name, rule in routes_of(settings).routes.items() if rule.kind == "ses"]
    if not accounts:
        return [skipped("SES: no route goes by it")]
    found: list[Finding] = []
    for name, rule in accounts:
        found.extend(await asyncio.to_thread(_ses, name, rule))
    return found


def _port_25(address: tuple[str, int]) -> Finding:
    shown = f"{address[0]}:{address[1]}"
    try:
        with connected(address) as dialogue:
            dialogue.expect(220)
            dialogue.command("QUIT", 221)
    except (OSError, NotSmtp) as error:
        return failed(
            f"port 25: {shown}: {error or type(error).__name__}",
            "ask AWS to lift the restriction on port 25 for this account (a support case), or deliver by a smarthost "
            "at 587 or 465",
        )
    return ok(f"port 25: {shown} greets")


def _smarthost(settings: Settings) -> Iterator[Finding]:
    shown = f"the smarthost {settings.smarthost_host}:{settings.smarthost_port}"
    step = "see SMARTHOST_HOST, SMARTHOST_PORT, SMARTHOST_TLS, SMARTHOST_CA_FILE, and what this network lets out"
    try:
        context = None if settings.smarthost_tls == "none" else tls_context(settings.smarthost_ca_file)
        with connected((settings.smarthost_host, settings.smarthost_port)) as dialogue:
            if context is not None and settings.smarthost_tls == "implicit":
                dialogue.start_tls(context, settings.smarthost_host)
            dialogue.expect(220)
            said = dialogue.command(f"EHLO {settings.hostname}", 250)
            if context is not None and settings.smarthost_tls == "starttls":
                dialogue.command("STARTTLS", 220)
                dialogue.start_tls(context, settings.smarthost_host)
                said = dialogue.command(f"EHLO {settings.hostname}", 250)
            dialogue.command("QUIT", 221)
    except ssl.SSLError as error:
        yield failed(f"{shown}: TLS: {getattr(error, 'verify_message', '') or error.reason}", step)
        return
    except (OSError, NotSmtp, SmtpProxyError) as error:
        yield failed(f"{shown}: {error or type(error).__name__}", step)
        return
    yield ok(f"{shown} greets{'' if context is None else ', with a certificate that verifies'}")
    if settings.smarthost_username and not any(line.upper().startswith("AUTH ") for line in said):
        yield failed(
            f"{shown} offers no AUTH, and SMARTHOST_USERNAME is set", "name the port for submission, 587 or 465"
        )


def _ses(name: str, rule: RouteRule) -> list[Finding]:
    import boto3  # noqa: PLC0415 - slow to load, and most installations have no such route
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    if rule.ses is None:
        return []
    config = Config(
        connect_timeout=_SES_CONNECT_SECONDS, read_timeout=_SES_READ_SECONDS, retries={"total_max_attempts": 2}
    )
    try:
        client = boto3.session.Session().client(
            "sesv2", region_name=rule.ses.region, endpoint_url=rule.ses.endpoint_url, config=config
        )
        account = client.get_account()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "an error")
        step = "allow ses:GetAccount and ses:SendEmail to the task's role"
        return [failed(f"SES (route {name}) says {code}", step)]
    except (BotoCoreError, ValueError) as error:
        step = "see region, endpoint_url and the task's role"
        return [failed(f"SES (route {name}): {type(error).__name__}", step)]
    return list(judge_ses(f"SES in {rule.ses.region} (route {name})", account, rule.ses.max_rate_per_second))


def judge_ses(shown: str, account: dict[str, Any], our_rate: float) -> Iterator[Finding]:
    """Pure; `account` is the answer to GetAccount (SES API v2)."""
    if not account.get("SendingEnabled", False):
        yield failed(f"{shown}: sending is paused", "see the account's reputation in the console of SES")
    if account.get("EnforcementStatus", "HEALTHY") != "HEALTHY":
        yield warning(
            f"{shown} is under review: {account['EnforcementStatus']}", "see the mail that SES sent you about it"
        )
    if not account.get("ProductionAccessEnabled", False):
        # How every account begins: mail to verified addresses goes, so it is no reason to keep a release back.
        yield warning(
            f"{shown} is in the sandbox: 200 recipients a day, and only those you verified",
            "request production access in the console of SES",
        )
    else:
        yield ok(f"{shown} has production access")
    quota = account.get("SendQuota") or {}
    most, sent, rate = (float(quota.get(key, 0)) for key in ("Max24HourSend", "SentLast24Hours", "MaxSendRate"))
    if most > 0:  # -1: without limit
        left = f"{sent:.0f} of {most:.0f} recipients of 24 hours are used"
        if sent > _QUOTA_SHARE * most:
            yield warning(
                f"{shown}: {left}", "ask for a higher quota (Service Quotas), or have another route beside it"
            )
        else:
            yield ok(f"{shown}: {left}")
    if 0 < rate < our_rate:
        yield warning(
            f"{shown} takes {rate:g} recipients a second, and the route begins at {our_rate:g}",
            f"set max_rate_per_second = {rate:g} in the route's table ses",
        )
