"""The command itself: its errors and exit codes, the services, `dev`, and all that is about the installation.

Services are imported inside their command: what `smtp-proxy dev` needs on a laptop is not installed in an image, and
listing tenants must not wait for a mail server to load.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import traceback
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from smtp_proxy import __version__
from smtp_proxy.cli.accounts import credential_app, tenant_app
from smtp_proxy.cli.api_keys import api_key_app
from smtp_proxy.cli.arguments import JsonOption, SetOption, parse_address, parse_overrides, settings_of
from smtp_proxy.cli.bans import bans_app
from smtp_proxy.cli.bringing import add_bringing
from smtp_proxy.cli.certificates import certs_app, client_certificates_app
from smtp_proxy.cli.dead_letters import messages_dead, messages_replay
from smtp_proxy.cli.deploy import deploy
from smtp_proxy.cli.doctor import doctor
from smtp_proxy.cli.domains import domains_app, secrets_app
from smtp_proxy.cli.explain import explain
from smtp_proxy.cli.issuing import add_issuing
from smtp_proxy.cli.messages import messages_app
from smtp_proxy.cli.output import make_table, masked, print_json, print_table
from smtp_proxy.cli.planning import plan, simulate
from smtp_proxy.cli.reroute import messages_reroute
from smtp_proxy.cli.routes import routes_app
from smtp_proxy.cli.showing import show
from smtp_proxy.cli.suppressions import suppressions_app
from smtp_proxy.cli.webhooks import webhooks_app
from smtp_proxy.config import Settings, environment_name
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.errors import ConfigurationError, InvalidValue, ServiceFailed, SmtpProxyError
from smtp_proxy.store import Store
from smtp_proxy.telemetry import logs, readiness

DEBUG_VARIABLE = "SMTP_PROXY_DEBUG"

app = typer.Typer(
    name="smtp-proxy",
    help="Multi-tenant SMTP submission: accepts mail durably, queues it and delivers it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tenant_app, name="tenant")
app.add_typer(credential_app, name="credential")
app.add_typer(api_key_app, name="api-key")
app.add_typer(messages_app, name="messages")
messages_app.command("dead")(messages_dead)
messages_app.command("replay")(messages_replay)
messages_app.command("reroute")(messages_reroute)
app.add_typer(suppressions_app, name="suppressions")
add_issuing(certs_app)
add_bringing(certs_app)
certs_app.command()(show)
app.add_typer(certs_app, name="certs")
app.add_typer(bans_app, name="bans")
app.add_typer(domains_app, name="domains")
app.add_typer(secrets_app, name="secrets")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(routes_app, name="routes")
credential_app.add_typer(client_certificates_app, name="certificate")


app.command()(explain)
app.command()(doctor)
app.command()(deploy)
app.command()(plan)
app.command()(simulate)


class Service(str, Enum):  # noqa: UP042 - typer shows the values of a str enum
    """What `serve` can start, and the coroutine function `run(settings)` that is it."""

    SMTP = "smtp"
    WORKER = "worker"
    CERTS = "certs"
    API = "api"
    SINK = "sink"


_RUNNERS = {
    Service.SMTP: "smtp_proxy.ingress.serve",
    Service.WORKER: "smtp_proxy.worker.worker",
    Service.CERTS: "smtp_proxy.certs.service",
    Service.API: "smtp_proxy.api.serve",
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
    current = settings_of(context)
    rows = [
        {
            "setting": name,
            "environment": environment_name(name),
            "value": masked(getattr(current, name)),
            "default": masked(info.default),
            "description": info.description or "",
        }
        for name, info in Settings.model_fields.items()
    ]
    if as_json:
        print_json(rows)
        return
    table = make_table("setting", "environment variable", "value", "default", "")
    for row in rows:
        style = "bold" if row["value"] != row["default"] else ""
        table.add_row(*(str(cell) for cell in row.values()), style=style)
    print_table(table)


@app.command()
def migrate(
    context: typer.Context,
    pre_only: Annotated[
        bool, typer.Option("--pre-only", help="Only what is safe beside the previous release, before it is replaced.")
    ] = False,
) -> None:
    """Bring the database schema up to this release."""
    applied = asyncio.run(Store.migrate(settings_of(context), kinds=("pre",) if pre_only else ("pre", "post")))
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
    settings = settings_of(context, set_)
    logs.configure(settings, service.value)
    run: Callable[[Settings], Coroutine[Any, Any, None]] = _import(_RUNNERS[service]).run
    # Where all work is on sockets it is a third of the cost (docs/decisions/0029); elsewhere it gains nothing.
    loop_factory = _import("uvloop").new_event_loop if service is Service.WORKER else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run(settings))


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
    context: typer.Context,
    service: Annotated[Service, typer.Argument(help="Which service.")],
    alive: Annotated[
        bool, typer.Option("--alive", help="Only whether it runs: not whether Postgres answers it, nor who it is.")
    ] = False,
) -> None:
    """Ask whether it is this service that answers on this machine (HEALTH_PORT), and is ready; exit code 0 or 1."""
    settings = settings_of(context)
    if settings.health_port == 0:
        raise ConfigurationError(f"HEALTH_PORT is 0, so {service.value} has no health listener to ask; set it for both")
    well, text = (readiness.ask_alive if alive else readiness.ask_service)(settings, service.value)
    typer.echo(text, err=not well)
    raise typer.Exit(0 if well else 1)


# -- below


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


def _first_of_ours(error: BaseException) -> SmtpProxyError | None:
    """The error itself, or the first of ours in a group (as task groups raise them)."""
    if isinstance(error, SmtpProxyError):
        return error
    if isinstance(error, BaseExceptionGroup):
        # An operator's fault explains more than the services that failed of it.
        ours = [found for inner in error.exceptions if (found := _first_of_ours(inner)) is not None]
        return min(ours, key=lambda e: (e.fault != "operator", isinstance(e, ServiceFailed)), default=None)
    return None
