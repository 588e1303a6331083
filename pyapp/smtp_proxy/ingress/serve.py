"""`smtp-proxy serve smtp`: the SMTP service.

settings ─▶ core config ─▶ core ─▶ committers, login desk, announcer, watches ─▶ health
SIGTERM ─▶ not ready ─▶ delay ─▶ listeners closed, sessions sent away ─▶ last commits ─▶ last ids ─▶ leave
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final
from uuid import UUID

from smtp_proxy.aws.logins import sealing_keys_when_there
from smtp_proxy.aws.protection import protecting
from smtp_proxy.certfiles.sync import CertificateSync, is_synced
from smtp_proxy.clock import SystemClock
from smtp_proxy.config import environment_name
from smtp_proxy.core import CertificateError, ConfigError, CoreServer, ServerConfig
from smtp_proxy.errors import CertificateProblem, ConfigurationError, StoreUnavailable
from smtp_proxy.ingress import bans, certificates
from smtp_proxy.ingress.allocator import give_back_large_blocks
from smtp_proxy.ingress.announce import Announcer
from smtp_proxy.ingress.commit import Committer, Discarder, Turns
from smtp_proxy.ingress.held import HeldWatch
from smtp_proxy.ingress.lanes import LaneDesk
from smtp_proxy.ingress.limits import LimitDesk
from smtp_proxy.ingress.login import LoginDesk
from smtp_proxy.ingress.once import Once
from smtp_proxy.ingress.pressure import DepthWatch, Gatekeeper, StoreWatch
from smtp_proxy.ingress.reload import Reloader
from smtp_proxy.ingress.requests import reloading
from smtp_proxy.model.tenant import Identity
from smtp_proxy.store.arrival import ToldToStop, connect_when_there, when_there
from smtp_proxy.store.store import Store
from smtp_proxy.stream.depth import Depth
from smtp_proxy.stream.limits import SharedLimits
from smtp_proxy.stream.publisher import Publisher
from smtp_proxy.telemetry import emf, health
from smtp_proxy.telemetry.lifecycle import Lifecycle
from smtp_proxy.telemetry.metrics import REGISTRY, register_stats
from smtp_proxy.telemetry.tasks import end
from smtp_proxy.tenants.certificates import CertificateChecker
from smtp_proxy.tenants.held import HeldRoom
from smtp_proxy.tenants.limits import TenantLimiter
from smtp_proxy.tenants.logins import LoginChecker

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from smtp_proxy.config import Settings
    from smtp_proxy.ingress.certificates import CertificateSet

log = logging.getLogger(__name__)

_SOFTWARE: Final = "smtp-proxy"
_SOFTWARE_ACCEPT_ONLY: Final = "smtp-proxy (accept-only: mail is discarded)"
# The session's limits, by the settings that they come from.
_LIMITS: Final = {
    "smtp_max_command_line_bytes": "command_line_bytes",
    "smtp_max_auth_line_bytes": "auth_line_bytes",
    "smtp_max_text_line_bytes": "text_line_bytes",
    "smtp_max_message_bytes": "message_bytes",
    "smtp_max_recipients": "recipients",
    "smtp_max_errors_per_session": "errors_per_session",
    "smtp_max_auth_failures_per_session": "auth_failures_per_session",
    "smtp_max_messages_per_session": "messages_per_session",
    "smtp_max_hops": "hops",
    "smtp_max_idle_commands_per_session": "idle_commands_per_session",
}
# What protects from hostile clients, named as the core has it.
_PROTECTION: Final = (
    "proxy_protocol_timeout_seconds",
    "max_connections_per_address",
    "max_new_connections_per_address_per_minute",
    "ipv6_prefix_bits",
    "login_timeout_seconds",
    "login_delay_seconds",
    "login_delay_max_seconds",
    "login_failures_before_ban",
    "login_failures_window_seconds",
    "login_ban_seconds",
    "min_data_bytes_per_second",
    "min_data_grace_seconds",
    "max_sessions_per_credential",
)
# The core's other fields, by the settings that they come from.
_SETTINGS: Final = {
    "starttls_address": "SMTP_HOST, SMTP_STARTTLS_PORT",
    "tls_address": "SMTP_HOST, SMTP_TLS_PORT",
    "plaintext_address": "SMTP_PLAINTEXT_PORT",
    "plaintext_identity": "SMTP_PLAINTEXT_USERNAME",
    **{field: environment_name(name) for name, field in _LIMITS.items()},
    **{
        field: environment_name(f"smtp_{field}")
        for field in (
            "command_timeout_seconds",
            "data_timeout_seconds",
            "handshake_timeout_seconds",
            "session_max_seconds",
            "max_connections",
            "max_in_flight_bytes",
            "threads",
        )
    },
    "hostname": environment_name("hostname"),
    "certificates": "TLS_CERT_FILE, TLS_KEY_FILE",
    "ticket_seconds": "TLS_TICKET_SECONDS",
    "client_auth": "TLS_CLIENT_AUTH",
    "client_ca": "TLS_CLIENT_CA_FILE",
    "client_crl": "TLS_CLIENT_CRL_FILE",
}
_LEAVING_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 1.0


async def run(settings: Settings) -> None:
    """Take mail until told to stop by SIGTERM or SIGINT.

    Raises:
        ConfigurationError, CertificateProblem, StoreMisconfigured, SchemaMismatch: the operator has to act.
        SmtpProxyError: a part ended that should not have.
    """
    give_back_large_blocks()
    lifecycle = Lifecycle(settings.shutdown_timeout_seconds, settings.shutdown_delay_seconds)
    lifecycle.install_signals()
    async with health.starting(settings.health_host, settings.health_port, service="smtp") as readiness:
        await _run(settings, lifecycle, readiness)
    log.info("left", extra={"action": "left"})


async def _run(settings: Settings, lifecycle: Lifecycle, readiness: health.Readiness) -> None:
    serving = None if is_synced(settings) else read_certificates(settings)
    # Kept, so that it is not asked for again where they are needed.
    if is_synced(settings) and await sealing_keys_when_there(settings, lifecycle) is None:
        return
    store = await connect_when_there(settings, "smtp", lifecycle, accepts=True)
    if store is None:
        return
    try:
        sync = await CertificateSync.of(settings, store)
        with contextlib.suppress(ToldToStop):
            if sync is not None and not await _has_a_certificate(settings, sync, lifecycle):
                return
            if serving is None:
                serving = read_certificates(settings)  # Some of them came from the store a moment ago.
            plaintext_identity = await when_there(lambda: _plaintext_identity(settings, store), lifecycle)
            core = make_core(settings, serving, plaintext_identity)
            await _serve(settings, lifecycle, readiness, store, core, serving, sync)
    finally:
        await store.close(_LEAVING_SECONDS)


async def _has_a_certificate(settings: Settings, sync: CertificateSync, lifecycle: Lifecycle) -> bool:
    """Wait for the first, which the issuer of a new fleet takes a minute to get. False: told to stop meanwhile."""
    await when_there(sync.once, lifecycle)
    told = False
    while not (there := certificates.are_there(settings)) and not lifecycle.stopping:
        if not told:
            log.warning(
                "waiting for the first certificate: is `smtp-proxy serve certs` running, and what does "
                "`smtp-proxy certs orders` say?",
                extra={"action": "certificate_awaited"},
            )
            told = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN_SECONDS):
                await lifecycle.stopped()
        with contextlib.suppress(StoreUnavailable):
            await sync.once()
    return there


def read_certificates(settings: Settings) -> CertificateSet:
    """All that shall be served. Raises ConfigurationError, CertificateProblem."""
    return certificates.read(settings, SystemClock().now())


def make_core(settings: Settings, serving: CertificateSet, plaintext_identity: Identity | None = None) -> CoreServer:
    """Build the core; nothing is opened yet. Raises ConfigurationError, CertificateProblem."""
    try:
        return CoreServer(
            core_config(settings, serving, plaintext_identity),
            batch_messages=settings.ingress_batch_messages,
            batch_bytes=settings.ingress_batch_bytes,
        )
    except ConfigError as error:
        raise _in_settings(error) from None
    except CertificateError as error:
        raise CertificateProblem(str(error)) from None


def core_config(settings: Settings, serving: CertificateSet, plaintext_identity: Identity | None) -> ServerConfig:
    """Translate the settings into the core's. Raises core.ConfigError."""
    plaintext = None if plaintext_identity is None else settings.smtp_plaintext_port
    return ServerConfig(
        hostname=settings.hostname,
        software=_SOFTWARE_ACCEPT_ONLY if settings.smtp_accept_only else _SOFTWARE,
        starttls_address=_address(settings.smtp_host, settings.smtp_starttls_port),
        tls_address=_address(settings.smtp_host, settings.smtp_tls_port),
        plaintext_address=None if plaintext is None else _address("127.0.0.1", plaintext),
        plaintext_identity=None if plaintext_identity is None else _identity(plaintext_identity),
        certificates=serving.for_core(),
        limits={limit: getattr(settings, name) for name, limit in _LIMITS.items()},
        command_timeout_seconds=settings.smtp_command_timeout_seconds,
        data_timeout_seconds=settings.smtp_data_timeout_seconds,
        handshake_timeout_seconds=settings.smtp_handshake_timeout_seconds,
        session_max_seconds=settings.smtp_session_max_seconds,
        max_connections=settings.smtp_max_connections,
        max_in_flight_bytes=settings.smtp_max_in_flight_bytes,
        threads=settings.smtp_threads,
        add_missing_headers=settings.smtp_add_missing_headers,
        strip_bcc=settings.smtp_strip_bcc,
        tls13_only=settings.tls_min_version == "1.3",
        ticket_seconds=settings.tls_ticket_seconds,
        client_auth=settings.tls_client_auth,
        client_ca=serving.client_ca,
        client_crl=serving.client_crl,
        protection={name: getattr(settings, f"smtp_{name}") for name in _PROTECTION},
        proxy_networks=[network for network in settings.smtp_proxy_protocol_networks.split(",") if network],
    )


class Service:
    """All parts of the running service; each is a task, and one that fails stops the service."""

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        store: Store,
        core: CoreServer,
        publisher: Publisher,
        depth: Depth,
        shared_limits: SharedLimits,
    ) -> None:
        self._lifecycle = lifecycle
        self._core = core
        self._store = store
        clock = SystemClock()
        self._checker = LoginChecker(store, settings, clock)
        self._certificates = CertificateChecker(store, settings, clock)
        self._gatekeeper = Gatekeeper(core)
        self._store_watch = StoreWatch(store, self._gatekeeper, clock=clock)
        self._depth_watch = DepthWatch(
            depth,
            store,
            self._gatekeeper,
            high=settings.ingress_ready_depth_high,
            low=settings.ingress_ready_depth_low,
        )
        self._announcer = Announcer(publisher)
        held = HeldRoom(settings.tenant_held_max_messages, settings.tenant_held_max_bytes)
        self.limiter = TenantLimiter(
            shared_limits,
            clock,
            timeout_seconds=settings.tenant_limit_timeout_seconds,
            delay_max_seconds=settings.tenant_delay_max_seconds,
            held=held,
        )
        self._held_watch = HeldWatch(store, held, self.limiter, clock=clock)
        self._limits = LimitDesk(core, store, self.limiter, shared_limits, clock=clock)
        self._once = Once(store)
        self._lanes = LaneDesk(core, store)
        turns = Turns(busy_share=settings.ingress_busy_percent / 100)
        self._takers: list[Committer | Discarder] = [
            Discarder(core)
            if settings.smtp_accept_only
            else Committer(
                core,
                store,
                self._announcer,
                self._store_watch,
                sweep_after_seconds=settings.sweep_after_seconds,
                turns=turns,
                limits=self._limits,
                once=self._once,
            )
            for _ in range(1 if settings.smtp_accept_only else settings.ingress_committers)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._token = contextlib.ExitStack()

    def start(self) -> dict[str, tuple[str, int]]:
        """Start every part, the listeners last; returns their addresses. Raises core.ConfigError."""
        for number, taker in enumerate(self._takers):
            self._start(taker.run(), f"committer-{number}")
        self._start(LoginDesk(self._core, self._checker, self._certificates).run(), "logins")
        self._start(self._store.listen_credentials(self._tenants_changed), "credentials")
        self._start(self._limits.run(), "limits")
        self._start(self._once.run(), "idempotency")
        self._start(self._lanes.run(), "lanes")
        self._start(self._held_watch.run(), "held-watch")
        self._start(self._announcer.run(), "announcer")
        self._start(self._store_watch.run(), "store-watch")
        self._start(self._depth_watch.run(), "depth-watch")
        addresses = self._core.start()
        self._token.enter_context(self._lifecycle.hold("the sessions"))
        return addresses

    def close(self) -> None:
        """Take nothing new; let those who are in a message finish it, and their ids reach the stream."""
        self._gatekeeper.close("draining")
        self._start(self._drain(), "drain")

    async def leave(self) -> None:
        """Break off what is still under way."""
        await self._core.stop()
        await end(self._tasks)
        self._token.close()
        self._checker.close()

    async def well(self) -> str | None:
        """What readiness says of the service itself. Raises StoreUnavailable: it is not at fault."""
        if not self._lifecycle.ready:
            return "stopping"
        if self._store_watch.is_down:
            raise StoreUnavailable("mail can not be stored")
        return None

    def _tenants_changed(self) -> None:
        self._checker.forget()
        self._core.forget_logins()
        self._certificates.forget()
        self._limits.changed()
        self._once.changed()
        self._lanes.changed()

    async def _drain(self) -> None:
        await self._core.drain()
        await self._announcer.flushed()
        self._token.close()

    def _start(self, part: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(part, name=name)
        self._lifecycle.watch(task)
        self._tasks.append(task)


async def _serve(
    settings: Settings,
    lifecycle: Lifecycle,
    readiness: health.Readiness,
    store: Store,
    core: CoreServer,
    serving: CertificateSet,
    sync: CertificateSync | None,
) -> None:
    publisher, depth, shared_limits = Publisher(settings), Depth(settings), SharedLimits(settings)
    service = Service(settings, lifecycle, store, core, publisher, depth, shared_limits)
    stats = register_stats(core.stats)
    lifecycle.on_close("sessions", service.close)
    try:
        _announce(_start(service), settings)
        checks = {"service": service.well, "postgres": lambda: _pinged(store)}
        with readiness.of(checks):
            async with (
                contextlib.AsyncExitStack() as stack,
                protecting(settings, lambda: core.stats()["connections_active"] > 0, clock=SystemClock()),
                emf.reporting(settings, "smtp", clock=SystemClock()),
            ):
                reloader = Reloader(settings, core, SystemClock(), serving)
                await stack.enter_async_context(reloading(settings, lifecycle, store, reloader, bans.verbs(core), sync))
                # A successor may want the control socket while we drain.
                lifecycle.on_close("certificates", stack.aclose)
                await lifecycle.run_until_stopped()
    finally:
        await service.leave()
        REGISTRY.unregister(stats)
        await publisher.close()
        await depth.close()
        await shared_limits.close()


def _start(service: Service) -> dict[str, tuple[str, int]]:
    try:
        return service.start()
    except ConfigError as error:
        raise _in_settings(error) from None


def _in_settings(error: ConfigError) -> ConfigurationError:
    """Name the settings at fault where the core names its own fields."""
    field, colon, rest = str(error).partition(": ")
    return ConfigurationError(f"{_SETTINGS.get(field, field)}{colon}{rest}")


def _announce(addresses: dict[str, tuple[str, int]], settings: Settings) -> None:
    for name, (host, port) in addresses.items():
        log.info("listening: %s on %s:%s", name, host, port, extra={"action": "listening", "listener": name})
    if settings.smtp_accept_only:
        log.warning("accept-only: mail is discarded", extra={"action": "accept_only"})


async def _plaintext_identity(settings: Settings, store: Store) -> Identity | None:
    """Whose mail the plaintext listener takes; None: there is no such listener."""
    if settings.smtp_plaintext_port is None:
        return None
    username = settings.smtp_plaintext_username
    if settings.smtp_accept_only and not username:
        return Identity(UUID(int=0), UUID(int=0), "accept-only")
    credential = await store.credential_by_username(username) if username else None
    if credential is None:
        raise ConfigurationError(
            f"SMTP_PLAINTEXT_USERNAME: there is no credential {username!r}; `smtp-proxy credential create` makes one"
        )
    if credential.disabled_at is not None:
        raise ConfigurationError(f"SMTP_PLAINTEXT_USERNAME: the credential {username!r} is disabled; name another")
    return Identity(credential.tenant_id, credential.id, credential.username, credential.allowed_senders)


def _identity(identity: Identity) -> tuple[bytes, bytes, str, tuple[str, ...]]:
    return identity.tenant_id.bytes, identity.credential_id.bytes, identity.username, identity.senders


async def _pinged(store: Store) -> str | None:
    await store.ping()
    return None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
