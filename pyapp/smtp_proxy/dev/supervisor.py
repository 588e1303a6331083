"""`smtp-proxy dev`: everything on one machine, in one terminal.

    lock ─▶ settings, certificates ─▶ postgres, valkey ─▶ migrate, first tenant ─▶ sink, smtp, worker, api ─▶ ready file
    Ctrl-C ─▶ ready file gone ─▶ smtp, worker and api drain ─▶ sink ─▶ valkey, postgres

A service that ends before it is told to is started again on the same port. What is here watches and restarts; what
each service does is its own room's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Final

from smtp_proxy.certs.selfsigned import DEVELOPMENT_NAMES, ensure_server_certificate
from smtp_proxy.config import Settings
from smtp_proxy.dev import account, greeting, hosts, leftovers, plan, postgres, ready, services, valkey
from smtp_proxy.dev.home import Home
from smtp_proxy.dev.options import DevOptions
from smtp_proxy.dev.plan import Plan
from smtp_proxy.dev.ports import Ports
from smtp_proxy.dev.program import Program, Running
from smtp_proxy.dev.ready import ReadyFile
from smtp_proxy.dev.terminal import Terminal
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.store import Store
from smtp_proxy.telemetry import logs

log = logging.getLogger(__name__)

# Who is stopped together; the next ones when these are gone.
_STOPS: Final = (("smtp", "worker", "api"), ("sink",), ("valkey", "postgres"))


async def run(options: DevOptions) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; returns the exit code.

    Raises:
        SmtpProxyError: it could not be started; everything that was is stopped again.
    """
    given = plan.load(options)
    ready_file = ReadyFile(options.ready_file)
    home = Home(given.data_dir)
    home.open()
    ready_file.remove()  # of a run that was killed: nobody shall believe it while this one starts
    terminal = Terminal()
    try:
        logs.configure(_own_logs(given), "dev", stream=terminal)
        for name in plan.ignored(options, given):
            log.warning("%s is not used: the embedded servers have their own; see --without", name)
        await leftovers.end(home)
        with contextlib.closing(Ports(home.read_json("ports.json"))) as ports:
            await Supervisor(options, given, home, ports, ready_file, terminal).run()
    finally:
        terminal.close()
        home.close()
    return 0


class Supervisor:
    """One run."""

    def __init__(
        self,
        options: DevOptions,
        given: Settings,
        home: Home,
        ports: Ports,
        ready_file: ReadyFile,
        terminal: Terminal,
    ) -> None:
        self._home = home
        self._terminal = terminal
        self._coloured = logs.wants_colour(sys.stderr)
        secrets = home.secrets()
        home.secret_key()
        first = plan.make(options, given, home.path, secrets, ports)
        self._ca_file, self._plan = _with_certificates(first)
        self._valkey_port = ports.taken.get("valkey", 0)  # 0: it is not ours
        self._secrets = secrets
        self._ready_file = ready_file
        self._running: dict[str, Running] = {}
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._failure: BaseException | None = None
        self._password: str | None = None  # set when everything is ready
        home.write_json("ports.json", ports.taken)
        home.write("settings.toml", self._plan.settings.toml())

    async def run(self) -> None:
        """Start, wait, stop. Raises SmtpProxyError."""
        with self._signals():
            try:
                await self._start_unless_stopped()
                await self._stop.wait()
            finally:
                self._ready_file.remove()
                self._password = None
                await self._stop_all()
        if self._failure is not None:
            raise self._failure

    # -- starting

    async def _start_unless_stopped(self) -> None:
        """Start everything; being told to stop, or a service that can not be started, ends it."""
        starting = asyncio.ensure_future(self._start())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        elif (error := starting.exception()) is not None and self._failure is None:
            raise error

    async def _start(self) -> None:
        await self._start_servers()
        await self._prepare_store()
        password = await account.ensure(self._home, self._plan.settings, with_api=self._plan.has("api"))
        # The sink first: smtp and worker need it no sooner than their first mail, but it costs nothing.
        await self._launch(
            *(
                services.program(name, self._plan, self._say(name), coloured=self._coloured)
                for name in plan.OUR_SERVICES
                if self._plan.has(name)
            )
        )
        self._password = password
        self._publish()
        self._terminal.line(greeting.text(self._plan, self._ca_file, coloured=self._coloured))

    async def _start_servers(self) -> None:
        settings, servers = self._plan.settings, []
        if self._plan.has("postgres"):
            await postgres.prepare(self._home, self._secrets.db_password)
            servers.append(postgres.program(self._home, settings, self._say("postgres")))
        if self._plan.has("valkey"):
            servers.append(
                valkey.program(self._home, self._valkey_port, self._secrets.redis_password, self._say("valkey"))
            )
        await self._launch(*servers)
        if self._plan.has("postgres"):
            await postgres.ensure_database(settings)

    async def _prepare_store(self) -> None:
        applied = await Store.migrate(self._plan.settings)
        if applied:
            log.info("schema: applied %s", ", ".join(applied), extra={"action": "migrated"})

    async def _launch(self, *programs: Program) -> None:
        """Start these side by side and wait until all answer."""
        started = [Running(program, self._changed) for program in programs]
        for running in started:
            self._running[running.name] = running
            self._watch(running.run(), running.name)
        async with asyncio.TaskGroup() as waiting:
            for running in started:
                waiting.create_task(running.ready())

    def _watch(self, life: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(life, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._stop.set()

    def _say(self, name: str) -> Callable[[str], None]:
        return lambda line: self._terminal.line(services.labelled(name, line, coloured=self._coloured))

    # -- while it runs

    def _changed(self) -> None:
        """Another process is one of ours. A file that can not be written is no reason to stop what runs."""
        try:
            self._publish()
        except ConfigurationError as error:
            log.error("%s", error, extra={"action": "not_noted"})  # noqa: TRY400 - the message says it all

    def _publish(self) -> None:
        """Note who runs now; in the ready file too, once everything was ready. Raises ConfigurationError."""
        pids = {name: running.pid for name, running in self._running.items() if running.pid is not None}
        leftovers.remember(self._home, pids)
        if self._password is not None:
            self._ready_file.write(ready.describe(self._plan, self._password, self._ca_file, pids))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _signalled(self, name: str) -> None:
        if self._stop.is_set():
            log.warning("%s again: leaving at once", name, extra={"action": "leaving"})
            self._hurry.set()
        else:
            log.info("%s: stopping; once more to leave at once", name, extra={"action": "stopping"})
            self._stop.set()

    # -- stopping

    async def _stop_all(self) -> None:
        for group in _STOPS:
            hurry = self._hurry
            await asyncio.gather(*(self._running[name].stop(hurry) for name in group if name in self._running))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        leftovers.remember(self._home, {})
        log.info("stopped", extra={"action": "stopped"})


def _names(settings: Settings) -> list[str]:
    asked = (settings.hostname, hosts.reachable(settings.smtp_host))
    return list(dict.fromkeys([*DEVELOPMENT_NAMES, *asked]))


def _with_certificates(made: Plan) -> tuple[Path | None, Plan]:
    """The CA and the plan with a certificate by it; with one that was set, its CA is not ours to know.

    Raises:
        CertificateProblem: a file can not be read or written.
    """
    settings = made.settings
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        given = {"tls_cert_file": settings.tls_cert_file.absolute(), "tls_key_file": settings.tls_key_file.absolute()}
        return None, Plan(settings.model_copy(update=given), made.services, made.health_ports)
    files = ensure_server_certificate(settings.data_dir / "tls", _names(settings))
    own = {"tls_cert_file": files.certificate_file, "tls_key_file": files.key_file}
    return files.ca_file, Plan(settings.model_copy(update=own), made.services, made.health_ports)


def _own_logs(given: Settings) -> Settings:
    explicit = "log_format" in given.model_fields_set
    return given if explicit else given.model_copy(update={"log_format": "console"})
