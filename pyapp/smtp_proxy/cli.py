"""The command line: the only place that knows all rooms, and wires them together.

Services are imported inside their command: what `smtp-proxy dev` needs on a laptop is not installed in an image, and
listing tenants must not wait for a mail server to load.

Exit codes: 0 done; 1 it could not be done; 2 it was asked for wrongly (usage, settings); 130 interrupted.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smtp_proxy import __version__, tenants
from smtp_proxy.config import Settings, environment_name
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.errors import ConfigurationError, InvalidValue, ServiceFailed, SmtpProxyError
from smtp_proxy.model.envelope import DeliveryState
from smtp_proxy.model.message import Message, MessageSummary
from smtp_proxy.store import Store
from smtp_proxy.telemetry import logs

DEBUG_VARIABLE = "SMTP_PROXY_DEBUG"
_HEALTHCHECK_SECONDS = 4.0
_T = TypeVar("_T")

app = typer.Typer(
    name="smtp-proxy",
    help="Multi-tenant SMTP submission: accepts mail durably, queues it and delivers it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tenant_app = typer.Typer(help="Teams whose applications submit mail.", no_args_is_help=True)
credential_app = typer.Typer(help="Logins of tenants.", no_args_is_help=True)
messages_app = typer.Typer(help="Accepted mail and what became of it.", no_args_is_help=True)
app.add_typer(tenant_app, name="tenant")
app.add_typer(credential_app, name="credential")
app.add_typer(messages_app, name="messages")

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting (see `smtp-proxy settings`); may be given again."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input instead of generating one.")
]
UsernameArgument = Annotated[str, typer.Argument(metavar="USERNAME")]


class Service(str, Enum):  # noqa: UP042 - typer shows the values of a str enum
    """What `serve` can start, and the coroutine function `run(settings)` that is it."""

    SMTP = "smtp"
    WORKER = "worker"
    SINK = "sink"


_RUNNERS = {
    Service.SMTP: "smtp_proxy.ingress.serve",
    Service.WORKER: "smtp_proxy.worker.worker",
    Service.SINK: "smtp_proxy.dev.sink",
}


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code. Errors of ours are one line on stderr, without a traceback."""
    try:
        app(args=list(arguments), prog_name="smtp-proxy")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        ours = _first_of_ours(error)
        if ours is None or os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        if ours is None:
            return 1
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"smtp-proxy: {ours}"))
        return 2 if ours.fault == "operator" or isinstance(ours, InvalidValue) else 1
    return 0


# -- the process itself


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smtp-proxy {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    set_: SetOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Multi-tenant SMTP submission: accepts mail durably, queues it and delivers it."""
    del version  # handled by its callback
    context.obj = parse_overrides(set_)


@app.command("settings")
def show_settings(context: typer.Context, as_json: JsonOption = False) -> None:
    """List every setting: its environment variable, its value now, its default, what it is for."""
    current = _settings(context)
    rows = [
        {
            "setting": name,
            "environment": environment_name(name),
            "value": _masked(getattr(current, name)),
            "default": _masked(info.default),
            "description": info.description or "",
        }
        for name, info in Settings.model_fields.items()
    ]
    if as_json:
        _print_json(rows)
        return
    table = _table("setting", "environment variable", "value", "default", "")
    for row in rows:
        style = "bold" if row["value"] != row["default"] else ""
        table.add_row(*(str(cell) for cell in row.values()), style=style)
    _print(table)


@app.command()
def migrate(
    context: typer.Context,
    pre_only: Annotated[
        bool, typer.Option("--pre-only", help="Only what is safe beside the previous release, before it is replaced.")
    ] = False,
) -> None:
    """Bring the database schema up to this release."""
    applied = asyncio.run(Store.migrate(_settings(context), kinds=("pre",) if pre_only else ("pre", "post")))
    for label in applied:
        typer.echo(f"applied {label}")
    typer.echo("the schema is up to date")


@app.command()
def serve(
    context: typer.Context,
    service: Annotated[Service, typer.Argument(help="Which service.")],
    set_: SetOption = None,
) -> None:
    """Run one service until SIGTERM or Ctrl-C."""
    settings = _settings(context, set_)
    logs.configure(settings, service.value)
    runner: Callable[[Settings], Coroutine[Any, Any, None]] = _import(_RUNNERS[service]).run
    asyncio.run(runner(settings))


@app.command()
def dev(
    context: typer.Context,
    ready_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a JSON object here when every service answers.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Where everything is kept.")] = None,
    smarthost: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Deliver there instead of to the built-in sink.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Services not to start, such as worker,sink.")
    ] = None,
    set_: SetOption = None,
    starttls_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Submission with STARTTLS.")] = None,
    tls_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Submission with implicit TLS.")] = None,
    sink_port: Annotated[int | None, typer.Option(min=0, max=65535, help="The built-in sink.")] = None,
    plaintext_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Loopback only, no TLS and no AUTH: for benchmarks.")
    ] = None,
    accept_only: Annotated[
        bool, typer.Option("--accept-only", help="Benchmark: accepted mail is DISCARDED before it is stored.")
    ] = False,
) -> None:
    """Run everything on this machine: Postgres, Valkey, all services, a first tenant and a local mail sink."""
    options = DevOptions(
        ready_file=ready_file,
        data_dir=data,
        smarthost=parse_address(smarthost) if smarthost is not None else None,
        without=frozenset(name.strip() for names in without or () for name in names.split(",") if name.strip()),
        overrides={**context.obj, **parse_overrides(set_)},
        plaintext_port=plaintext_port,
        accept_only=accept_only,
        starttls_port=starttls_port,
        tls_port=tls_port,
        sink_port=sink_port,
    )
    supervise: Callable[[DevOptions], Coroutine[Any, Any, int]] = _import("smtp_proxy.dev.supervisor").run
    raise typer.Exit(asyncio.run(supervise(options)))


@app.command()
def healthcheck(
    context: typer.Context, service: Annotated[str, typer.Argument(help="Such as smtp or worker.")]
) -> None:
    """Ask a service on this machine whether it is ready (HEALTH_PORT); exit code 0 or 1."""
    settings = _settings(context)
    if settings.health_port == 0:
        raise ConfigurationError(f"HEALTH_PORT is 0, so {service} has no health listener to ask; set it for both")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.health_host, settings.health_host)  # noqa: S104
    ready, text = _ask_ready(host, settings.health_port, service)
    typer.echo(text, err=not ready)
    raise typer.Exit(0 if ready else 1)


# -- tenants and credentials


@tenant_app.command("create")
def tenant_create(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Add a tenant."""

    async def work(store: Store) -> None:
        tenant = await tenants.create_tenant(store, name)
        typer.echo(f"created tenant {tenant.name} ({tenant.id})")

    _with_store(context, work)


@tenant_app.command("list")
def tenant_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List tenants."""
    found = _with_store(context, lambda store: store.list_tenants())
    if as_json:
        _print_json([asdict(tenant) for tenant in found])
        return
    table = _table("name", "id", "created", "disabled")
    for tenant in found:
        table.add_row(tenant.name, str(tenant.id), _when(tenant.created_at), _when(tenant.disabled_at))
    _print(table)


@credential_app.command("create")
def credential_create(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    username: UsernameArgument,
    password_stdin: PasswordStdin = False,
) -> None:
    """Give a tenant a login. A generated password is shown once, now."""
    given = _password_from_stdin() if password_stdin else None

    async def work(store: Store) -> None:
        async with _passwords() as passwords:
            credential, secret = await tenants.create_credential(store, passwords, tenant, username, given)
        typer.echo(f"created credential {credential.username} of tenant {tenant}")
        _show_password(None if given else secret)

    _with_store(context, work)


@credential_app.command("list")
def credential_list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List credentials, without anything secret."""

    async def work(store: Store) -> list[dict[str, Any]]:
        names = {t.id: t.name for t in await store.list_tenants()}
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return [
            {
                "username": c.username,
                "tenant": names.get(c.tenant_id, str(c.tenant_id)),
                "id": c.id,
                "created_at": c.created_at,
                "disabled_at": c.disabled_at,
            }
            for c in await store.list_credentials(owner)
        ]

    rows = _with_store(context, work)
    if as_json:
        _print_json(rows)
        return
    table = _table("username", "tenant", "id", "created", "disabled")
    for row in rows:
        table.add_row(
            row["username"], row["tenant"], str(row["id"]), _when(row["created_at"]), _when(row["disabled_at"])
        )
    _print(table)


@credential_app.command("disable")
def credential_disable(context: typer.Context, username: UsernameArgument) -> None:
    """Refuse this login from now on, in every process."""

    async def work(store: Store) -> None:
        await store.disable_credential(username)

    _with_store(context, work)
    typer.echo(f"disabled credential {username}")


@credential_app.command("reset-password")
def credential_reset_password(
    context: typer.Context, username: UsernameArgument, password_stdin: PasswordStdin = False
) -> None:
    """Replace a password. A generated one is shown once, now."""
    given = _password_from_stdin() if password_stdin else None

    async def work(store: Store) -> None:
        async with _passwords() as passwords:
            _, secret = await tenants.reset_password(store, passwords, username, given)
        typer.echo(f"replaced the password of {username}")
        _show_password(None if given else secret)

    _with_store(context, work)


# -- messages


@messages_app.command("list")
def messages_list(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.")] = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="queued, sending, delivered or refused, for some recipient.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    before: Annotated[str | None, typer.Option(metavar="ID", help="Only older ones than this.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List messages, newest first."""
    wanted_state = parse_state(state) if state is not None else None
    wanted_before = parse_id(before) if before is not None else None

    async def work(store: Store) -> list[MessageSummary]:
        owner = (await store.tenant_by_name(tenant)).id if tenant is not None else None
        return await store.list_messages(tenant_id=owner, state=wanted_state, limit=limit, before=wanted_before)

    found = _with_store(context, work)
    if as_json:
        _print_json([asdict(summary) for summary in found])
        return
    table = _table("id", "received", "from", "to", "bytes", "state")
    for summary in found:
        first, more = summary.recipients[0] if summary.recipients else "", len(summary.recipients) - 1
        table.add_row(
            str(summary.id),
            _when(summary.received_at),
            f"<{summary.reverse_path}>",
            f"<{first}>" + (f" and {more} more" if more > 0 else ""),
            str(summary.size_bytes),
            describe_states(summary.states),
        )
    _print(table)


@messages_app.command("show")
def messages_show(
    context: typer.Context, message_id: Annotated[str, typer.Argument(metavar="ID")], as_json: JsonOption = False
) -> None:
    """Show one message: its recipients, and each attempt to deliver it."""
    wanted = parse_id(message_id)

    async def work(store: Store) -> Message:
        return await store.message(wanted)

    message = _with_store(context, work)
    if as_json:
        _print_json(asdict(message))
    else:
        _print_message(message)


# -- below: arguments


def parse_overrides(pairs: Sequence[str] | None) -> dict[str, str]:
    """`KEY=VALUE` each; a key may be written like the environment variable.

    Raises:
        ConfigurationError: not of that form, or there is no such setting.
    """
    by_environment = {environment_name(field): field for field in Settings.model_fields}
    overrides: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {pair}: write KEY=VALUE")
        field = by_environment.get(key, key)
        if field not in Settings.model_fields:
            raise ConfigurationError(f"--set {key}: there is no such setting; `smtp-proxy settings` lists them")
        overrides[field] = value
    return overrides


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, with an IPv6 address in brackets.

    Raises:
        ConfigurationError: not of that form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{text}: write HOST:PORT, such as 127.0.0.1:2525 or [::1]:2525")
    return host, int(port)


def parse_state(text: str) -> DeliveryState:
    """Raises InvalidValue, naming the states there are."""
    try:
        return DeliveryState[text.upper()]
    except KeyError:
        raise InvalidValue(f"{text}: use one of {', '.join(s.name.lower() for s in DeliveryState)}") from None


def parse_id(text: str) -> UUID:
    """Raises InvalidValue."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidValue(f"{text}: not a message id; they look like 019aba2c-8f1e-7c3a-9d3e-0242ac120002") from None


def _settings(context: typer.Context, set_: Sequence[str] | None = None) -> Settings:
    return Settings.load({**context.obj, **parse_overrides(set_)})


def _password_from_stdin() -> str:
    return sys.stdin.readline().rstrip("\r\n")


# -- below: doing


def _with_store(context: typer.Context, work: Callable[[Store], Coroutine[Any, Any, _T]]) -> _T:
    """Run `work` with a connected store."""
    settings = _settings(context)

    async def connected() -> _T:
        store = await Store.connect(settings, purpose="cli")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(connected())


@asynccontextmanager
async def _passwords() -> AsyncIterator[tenants.Passwords]:
    passwords = tenants.Passwords(threads=1)
    try:
        yield passwords
    finally:
        passwords.close()


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "smtp_proxy"):
            raise
        raise ConfigurationError(
            f"the Python package {missing} is not installed; for `dev` and `serve sink` install 'smtp-proxy[dev]'"
        ) from error


def _ask_ready(host: str, port: int, service: str) -> tuple[bool, str]:
    connection = http.client.HTTPConnection(host, port, timeout=_HEALTHCHECK_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read(65_536).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{service} does not answer on {host}:{port}: {error}"
    finally:
        connection.close()
    return response.status == 200, f"{service}: {text}"


def _first_of_ours(error: BaseException) -> SmtpProxyError | None:
    """The error itself, or the first of ours in a group (as task groups raise them)."""
    if isinstance(error, SmtpProxyError):
        return error
    if isinstance(error, BaseExceptionGroup):
        # An operator's fault explains more than the services that failed of it.
        ours = [found for inner in error.exceptions if (found := _first_of_ours(inner)) is not None]
        return min(ours, key=lambda e: (e.fault != "operator", isinstance(e, ServiceFailed)), default=None)
    return None


# -- below: showing


def describe_states(states: Sequence[DeliveryState]) -> str:
    """`delivered`, or `2 delivered, 1 queued` where recipients differ."""
    names = [state.name.lower() for state in states]
    kinds = sorted(set(names))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{names.count(kind)} {kind}" for kind in kinds)


def _print_message(message: Message) -> None:
    summary = message.summary
    typer.echo(f"message   {summary.id}")
    typer.echo(f"received  {_when(summary.received_at)} from {summary.client_address} ({summary.helo}), ", nl=False)
    typer.echo("TLS" if summary.tls else "without TLS")
    typer.echo(f"from      <{summary.reverse_path}>, {summary.size_bytes} bytes")
    table = _table("to", "state", "attempts", "next attempt", "finished")
    for d in message.deliveries:
        waits = _when(d.next_attempt_at) if d.state is DeliveryState.QUEUED else ""
        table.add_row(f"<{d.recipient}>", d.state.name.lower(), str(d.attempt_count), waits, _when(d.finished_at))
    _print(table)
    attempts = _table("attempt", "to", "at", "took", "outcome", "server", "reply")
    for d in message.deliveries:
        for a in d.attempts:
            took = f"{(a.finished_at - a.started_at).total_seconds():.3f} s"
            reply = " ".join(part for part in (str(a.reply_code or ""), a.enhanced_code, a.reply_text) if part)
            outcome = a.outcome.name.lower()
            attempts.add_row(str(a.number), f"<{d.recipient}>", _when(a.started_at), took, outcome, a.remote, reply)
    if attempts.row_count:
        _print(attempts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table) -> None:
    """Without a terminal each row is one line, whatever its length, so that it can be searched and cut."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=10_000)
    console.print(table)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(logs.plain(value), indent=2, ensure_ascii=False))


def _when(moment: Any) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S") + "Z"


def _masked(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return logs.REDACTED if value.get_secret_value() else ""
    return "" if value is None else str(value) if isinstance(value, Path) else value


def _show_password(secret: str | None) -> None:
    """On stdout, since whoever asked for it may want to pipe it somewhere safe."""
    if secret is not None:
        typer.echo(f"password: {secret}")
