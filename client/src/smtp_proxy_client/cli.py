"""The command line. The only place that reads options, prints, and chooses exit codes.

Results go to stdout; warnings, progress and errors to stderr. No colours and no cursor movement,
so there is nothing for NO_COLOR to switch off and nothing to restore.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from smtp_proxy_client import __version__, certificate, pins, report
from smtp_proxy_client.batch import Batch, Plan
from smtp_proxy_client.dial import Dialer, Login, Mechanism, Secret, Target, TlsMode
from smtp_proxy_client.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    CertificateRejected,
    ClientError,
    UsageError,
)
from smtp_proxy_client.message import Template, checked_address, checked_line, is_utf8, read_text
from smtp_proxy_client.send import send as send_letter
from smtp_proxy_client.stats import Recorder, Result, Run

PASSWORD_VARIABLE = "SMTP_PROXY_CLIENT_PASSWORD"  # noqa: S105 - the name of a variable.
DEFAULT_SENDER = "sender@example.com"
DEFAULT_RECIPIENT = "recipient@example.com"
DEFAULT_SUBJECT = "Test Email"
DEFAULT_BODY = "This is a test email"
BATCH_TEMPLATE = "Subject: Batch Test Email $count\n\nThis is batch test email number $count\n"

app = typer.Typer(
    # Rich tracebacks print local variables, and one of them is a password.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    epilog="Exit codes: 0 all accepted, 1 refused (batch: any mail failed), 2 usage, 3 connection,"
    " 4 TLS, 5 login, 130 interrupted.",
)

Host = Annotated[str, typer.Option("--host", help="Server's name or address.")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="587 for starttls, 465 for implicit, 25 for none."),
]
Tls = Annotated[TlsMode, typer.Option("--tls", help="none sends in the clear.")]
User = Annotated[str | None, typer.Option("--user", help="Log in as this user before sending.")]
Password = Annotated[
    str | None,
    typer.Option(
        "--password",
        help="Others can see it in the process list. Instead: - (asks, or reads a line of stdin), "
        f"--password-file, or the variable {PASSWORD_VARIABLE}.",
    ),
]
PasswordFile = Annotated[Path | None, typer.Option("--password-file", help="File whose first line is the password.")]
Auth = Annotated[Mechanism, typer.Option("--auth", help="auto: PLAIN if offered, else LOGIN.")]
Sender = Annotated[
    str | None,
    typer.Option("--from", help=f"Default: --user if it is an address, else {DEFAULT_SENDER}."),
]
Recipients = Annotated[
    list[str] | None,
    typer.Option("--to", help=f"May be repeated; a batch takes them in turn. [{DEFAULT_RECIPIENT}]"),
]
Subject = Annotated[str | None, typer.Option("--subject", help="Taken as it is.")]
Body = Annotated[str | None, typer.Option("--body", help="Taken as it is.")]
BodyFile = Annotated[Path | None, typer.Option("--body-file", help="Read the body from a file.")]
TemplateFile = Annotated[
    Path | None,
    typer.Option(
        "--template",
        help="File with headers, an empty line and the body, in which $count, $to, $from, $date "
        "and $unique are filled in.",
    ),
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", help="Trust these CAs (PEM), and no others.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not verify the certificate.")]
Pins = Annotated[
    list[str] | None,
    typer.Option("--pin", metavar="sha256/BASE64", help="The server's public key must be this one; may be repeated."),
]
ServerName = Annotated[str, typer.Option("--server-name", help="Name for SNI and verification. Default: --host.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, max=86400, help="Seconds to wait for each answer.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON (schema.json).")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Count = Annotated[int, typer.Option("--count", min=1, help="How many mails.")]
Rate = Annotated[
    float | None,
    typer.Option("--rate", min=0.001, max=1_000_000, help="Mails per second. Default: as fast as it goes."),
]
Connections = Annotated[int, typer.Option("--connections", min=1, max=1000, help="How many at the same time.")]
MailsPerConnection = Annotated[
    int,
    typer.Option("--messages-per-connection", min=0, help="Then connect anew. 0: never."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        app(args=arguments, prog_name="smtp-proxy-client")
    except ClientError as error:
        complain(error)
        return error.exit_code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else EXIT_FAILED
    return 0


def show_version(wanted: bool) -> None:
    """For --version."""
    if wanted:
        typer.echo(f"smtp-proxy-client {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=show_version, help="Show it.")] = False,
) -> None:
    """Send test mails to an SMTP submission server, and say what it did."""


@app.command()
def send(
    *,
    host: Host = "localhost",
    port: Port = None,
    tls: Tls = TlsMode.STARTTLS,
    user: User = None,
    password: Password = None,
    password_file: PasswordFile = None,
    auth: Auth = Mechanism.AUTO,
    sender: Sender = None,
    to: Recipients = None,
    subject: Subject = None,
    body: Body = None,
    body_file: BodyFile = None,
    template: TemplateFile = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    pin: Pins = None,
    server_name: ServerName = "",
    timeout: Timeout = 30.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send a single mail to all recipients."""
    login = login_from(user, password, password_file, auth)
    target = target_from(
        host=host,
        port=port,
        tls=tls,
        login=login,
        ca_file=ca_file,
        insecure=insecure,
        pins=pins.checked(pin or []),
        server_name=server_name,
        timeout_seconds=timeout,
    )
    text = template_from(template, subject, body, body_file) or Template.literal(DEFAULT_SUBJECT, DEFAULT_BODY)
    letter = text.compose(1, sender_from(sender, user), recipients_from(to))
    dialer = Dialer(target)
    warn_if_insecure(target)
    recorder = Recorder(Run("send", target.host, target.port, target.tls))
    try:
        result, error = send_letter(dialer, letter, recorder)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if json or (error is None and not quiet):
        show(result, json=json)
    if error:
        complain(error, dialer)
        raise typer.Exit(error.exit_code)
    if result.mail and result.mail.refused_recipients:
        for recipient, reply in result.mail.refused_recipients.items():
            typer.echo(f"error: {recipient} refused: {reply}", err=True)
        raise typer.Exit(EXIT_FAILED)


@app.command()
def batch(
    *,
    host: Host = "localhost",
    port: Port = None,
    tls: Tls = TlsMode.STARTTLS,
    user: User = None,
    password: Password = None,
    password_file: PasswordFile = None,
    auth: Auth = Mechanism.AUTO,
    sender: Sender = None,
    to: Recipients = None,
    subject: Subject = None,
    body: Body = None,
    body_file: BodyFile = None,
    template: TemplateFile = None,
    count: Count = 10,
    rate: Rate = None,
    connections: Connections = 1,
    messages_per_connection: MailsPerConnection = 1,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    pin: Pins = None,
    server_name: ServerName = "",
    timeout: Timeout = 30.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send many mails and count what became of them.

    A mail that fails does not end the batch. Ctrl-C lets the mails under way finish and shows the
    summary; a second one leaves at once.
    """
    login = login_from(user, password, password_file, auth)
    target = target_from(
        host=host,
        port=port,
        tls=tls,
        login=login,
        ca_file=ca_file,
        insecure=insecure,
        pins=pins.checked(pin or []),
        server_name=server_name,
        timeout_seconds=timeout,
    )
    plan = Plan(
        template=template_from(template, subject, body, body_file) or Template.parse(BATCH_TEMPLATE),
        sender=sender_from(sender, user),
        recipients=recipients_from(to),
        count=count,
        rate_per_second=rate,
        connections=connections,
        mails_per_connection=messages_per_connection,
    )
    dialer = Dialer(target)
    warn_if_insecure(target)
    run = Run("batch", target.host, target.port, target.tls, count, rate, connections)
    job = Batch(dialer, plan, Recorder(run))
    result = job.run(lambda recorder: None if quiet else show_progress(recorder))
    if json or not quiet:
        show(result, json=json)
    else:
        for line in report.failure_lines(result):
            typer.echo(f"error: {line}", err=True)
    if job.certificate_error:
        complain(job.certificate_error, dialer)
    if result.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.failed:
        raise typer.Exit(EXIT_FAILED)


def show(result: Result, *, json: bool) -> None:
    """The result, on stdout."""
    typer.echo(report.as_json(result) if json else report.as_text(result))


def show_progress(recorder: Recorder) -> None:
    """A line on stderr."""
    typer.echo(report.progress_line(recorder), err=True)


def complain(error: ClientError, dialer: Dialer | None = None) -> None:
    """The error and the next step, on stderr."""
    if isinstance(error, CertificateRejected) and dialer:
        typer.echo(f"error: {certificate.explain(dialer, error)}", err=True)
        return
    typer.echo(f"error: {error.text}", err=True)
    if error.hint:
        typer.echo(f"next step: {error.hint}", err=True)


def warn_if_insecure(target: Target) -> None:
    """Somebody may have left the option in a script."""
    if target.insecure and target.tls is not TlsMode.NONE:
        typer.echo("warning: --insecure: the server's certificate is not verified", err=True)


def login_from(
    user: str | None, password: str | None, password_file: Path | None, mechanism: Mechanism
) -> Login | None:
    """Who logs in, if anybody; the password from the first source that was named."""
    refuse_together({"--password": password, "--password-file": password_file})
    if user is None:
        if password is not None or password_file is not None:
            raise UsageError("a password without --user", hint="add --user NAME")
        return None
    if password == "-":  # noqa: S105 - the sign for "ask me".
        password = read_password(user)
    elif password_file is not None:
        password = read_text(password_file, "--password-file").partition("\n")[0].rstrip("\r")
    elif password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        raise UsageError(
            "--user without a password",
            hint=f"add --password, --password -, --password-file, or set {PASSWORD_VARIABLE}",
        )
    if "\0" in password or not is_utf8(password):
        raise UsageError("the password holds a NUL or is not UTF-8 text, which AUTH cannot carry")
    return Login(checked_line(user, "--user"), Secret(password), mechanism)


def read_password(user: str) -> str:
    """Ask on the terminal, or take a line from a pipe."""
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {user}: ")
    return sys.stdin.readline().rstrip("\r\n")


def target_from(
    *,
    host: str,
    port: int | None,
    tls: TlsMode,
    login: Login | None,
    ca_file: Path | None,
    insecure: bool,
    pins: tuple[str, ...],
    server_name: str,
    timeout_seconds: float,
) -> Target:
    """The server, from its options."""
    refuse_together({"--insecure": insecure or None, "--ca-file": ca_file})
    host = checked_line(host, "--host").removeprefix("[").removesuffix("]")
    if not host:
        raise UsageError("--host is empty")
    checked_line(server_name, "--server-name")
    if pins and tls is TlsMode.NONE:
        raise UsageError("--pin without TLS", hint="--tls starttls, or --tls implicit")
    port = port or tls.default_port
    return Target(host, port, tls, login, ca_file, insecure, server_name, timeout_seconds, pins)


def template_from(file: Path | None, subject: str | None, body: str | None, body_file: Path | None) -> Template | None:
    """The mail's text if any option speaks of it."""
    refuse_together({"--template": file, "--subject": subject})
    refuse_together({"--template": file, "--body": body, "--body-file": body_file})
    if file:
        return Template.from_file(file)
    if body_file:
        body = read_text(body_file, "--body-file")
    if subject is None and body is None:
        return None
    return Template.literal(DEFAULT_SUBJECT if subject is None else subject, DEFAULT_BODY if body is None else body)


def sender_from(sender: str | None, user: str | None) -> str:
    """The sender's address."""
    if sender is None:
        sender = user if user and "@" in user else DEFAULT_SENDER
    return checked_address(sender, "--from")


def recipients_from(to: list[str] | None) -> tuple[str, ...]:
    """The recipients' addresses."""
    return tuple(checked_address(recipient, "--to") for recipient in to or [DEFAULT_RECIPIENT])


def refuse_together(options: dict[str, object]) -> None:
    """At most one of the options may be given."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
