"""Every `tests/dialogs/*.smtp` against the real listeners: sockets, TLS, logins and commits, over a store in memory.

The format is described in `tests/dialogs/README.md`; `core_rs/proto/tests/dialogs.rs` replays the same files against
the session alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from argon2 import PasswordHasher
from certificates import Authority
from fix_ingress import Address, Client, queued_id
from ingress_fakes import FakeShared, settle

from smtp_proxy.config import Settings
from smtp_proxy.core import (
    BODY,
    BODY_TYPE,
    CREDENTIAL_ID,
    DSN,
    HELO,
    ID,
    RECIPIENTS,
    REVERSE_PATH,
    SMTPUTF8,
    CoreServer,
    EnvelopeRow,
)
from smtp_proxy.errors import StoreError, StoreUnavailable
from smtp_proxy.ingress import serve
from smtp_proxy.model.dsn import DsnRow, Notify, Ret
from smtp_proxy.model.limits import Placement, TenantLimits
from smtp_proxy.model.tenant import Credential, Identity
from smtp_proxy.store.memory import MemoryStore
from smtp_proxy.stream.memory import MemoryDepth, MemoryPublisher, MemoryServer
from smtp_proxy.telemetry.lifecycle import Lifecycle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(30)]

FILES = sorted((Path(__file__).parents[2] / "dialogs").glob("*.smtp"))
# What a live listener cannot be made to do, and why.
SKIPPED = {
    "envelope_refused": "no rule of ours refuses an envelope for good once it is complete",
}
# Not to be cut: what is shown is what comes in one packet, or the server has gone before the rest is sent.
ONE_PACKET = {
    "starttls_injection": "what comes after the 220 of STARTTLS belongs to the handshake",
    "http_get": "the server has gone before the rest is sent",
    "http_post": "the server has gone before the rest is sent",
    "bdat_line_too_long": "the server has gone before the rest is sent",
}
USERNAME, PRESET = "tenant1@example.com", "preset@example.com"
# Whom the certificate of `certificate=client` names.
CLIENT = "client.example"
HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("secret")
# The session's limits, by the settings that they come from.
SETTING_OF = {limit: setting for setting, limit in serve._LIMITS.items()}
ANSWER_SECONDS = 10.0


@dataclass
class Dialog:
    """A file: its options, and (kind, value) of each step."""

    options: dict[str, str] = field(default_factory=dict)
    steps: list[tuple[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Dialog:
        dialog = cls()
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line and not line.startswith("#"):
                dialog._add(line)
        return dialog

    def _add(self, line: str) -> None:
        kind, _, text = line.partition(" ")
        match kind:
            case "options:":
                self.options = dict(option.split("=", 1) for option in text.split(" "))
            case "C<<":
                self._append("send", unescaped(repeated(text)))
            case "C:":
                self._append("send", repeated(text).encode() + b"\r\n")
            case "S:":
                self._append("answer", [text])
            case "E:":
                name, _, value = text.partition(" ")
                self.steps.append(("handed", (name, wanted(value))))
            case "TLS" | "CLOSED":
                self.steps.append((kind, None))
            case _:
                raise AssertionError(f"what is {line!r}?")

    def _append(self, kind: str, value: Any) -> None:
        """Lines of one side without another between them belong together."""
        if self.steps and self.steps[-1][0] == kind:
            value = self.steps.pop()[1] + value
        self.steps.append((kind, value))

    def queued(self) -> int:
        """How many messages it says are taken."""
        answers = [line for kind, lines in self.steps if kind == "answer" for line in lines]
        return sum("queued as" in line for line in answers)


def repeated(text: str) -> str:
    return re.sub(r"\{(.*?)\}\*(\d+)", lambda found: found[1] * int(found[2]), text)


def unescaped(text: str) -> bytes:
    known = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}

    def byte(found: re.Match[bytes]) -> bytes:
        return bytes.fromhex(found[1][1:].decode()) if found[1].startswith(b"x") else known[found[1]]

    return re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", byte, text.encode())


def wanted(value: str) -> re.Pattern[bytes]:
    r"""What is handed over; `\*` stands for any text."""
    return re.compile(b".*".join(re.escape(unescaped(piece)) for piece in value.split(r"\*")), re.DOTALL)


def matches(pattern: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.rstrip().split("*"))), line.rstrip()) is not None


class ScriptedStore(MemoryStore):
    """A store that follows the dialog's script, and remembers what it was handed."""

    def __init__(self, script: dict[str, str]) -> None:
        super().__init__()
        self.handed: list[EnvelopeRow] = []
        self._script = script
        self.tenant = UUID(int=0)

    async def credential_by_username(self, username: str) -> Credential | None:
        if self._script.get("login") == "unavailable":
            raise StoreUnavailable
        return await super().credential_by_username(username)

    async def accept(
        self,
        batch: Sequence[EnvelopeRow],
        *,
        sweep_after_seconds: float,
        placements: Mapping[bytes, Placement] | None = None,
    ) -> None:
        # A value that the store refuses; were the store away, the gate would close as well.
        if self._script.get("envelope") == "deferred":
            raise StoreError("by the script")
        await super().accept(batch, sweep_after_seconds=sweep_after_seconds, placements=placements)
        self.handed += batch

    async def usernames(self) -> dict[bytes, str]:
        return {credential.id.bytes: credential.username for credential in await self.list_credentials()}


class Replay:
    """One client that says what the file says, and compares."""

    def __init__(self, dialog: Dialog, core: CoreServer, store: ScriptedStore, tls: ssl.SSLContext) -> None:
        self._dialog = dialog
        self._core = core
        self._store = store
        self._tls = tls
        self._queued: list[bytes] = []  # ids, as the client was told

    async def run(self, address: Address, piece: int | None = None) -> None:
        """Connect and go through the steps. `piece`: so many bytes at a time."""
        self._set_gate(self._dialog.options.get("gate", "open"))
        tls = self._tls if self._dialog.options["listener"] == "tls" else None
        client = await Client.connect(address, tls)
        try:
            for kind, value in self._dialog.steps:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._step(client, kind, value, piece)
        finally:
            await client.vanish()
        assert [row[ID] for row in self._store.handed] == self._queued
        assert len(self._queued) == self._dialog.queued()

    async def _step(self, client: Client, kind: str, value: Any, piece: int | None) -> None:
        match kind:
            case "send":
                await self._send(client, value, piece or len(value))
            case "answer":
                await self._check_answer(client, value)
            case "handed":
                await self._check_handed(*value)
            case "TLS":
                await client.start_tls(self._tls)
            case "CLOSED":
                assert not await client.reader.read(), "more than was expected"

    async def _send(self, client: Client, content: bytes, piece: int) -> None:
        for start in range(0, len(content), piece):
            client.send(content[start : start + piece])
            if piece < len(content):
                await asyncio.sleep(0)

    async def _check_answer(self, client: Client, patterns: list[str]) -> None:
        """Exactly these lines; one too many would be found by the next step, and the last one is CLOSED."""
        lines = [(await client.reader.readline()).decode() for _ in patterns]
        assert all(line.endswith("\r\n") for line in lines), lines
        assert all(map(matches, patterns, lines)), f"expected {patterns}\ngot {lines}"
        self._queued += [queued_id(line.strip()).bytes for line in lines if "queued as" in line]
        if gate := self._dialog.options.get("gate_after_greeting"):
            self._set_gate(gate)

    def _set_gate(self, gate: str) -> None:
        if gate == "over_rate":  # of one tenant
            self._core.shut_tenant(self._store.tenant.bytes, 60)
        else:
            self._core.set_gate(gate)  # type: ignore[arg-type]

    async def _check_handed(self, name: str, value: re.Pattern[bytes]) -> None:
        if name == "none":
            assert self._store.handed == []
            return
        row = self._store.handed[-1]
        found = {
            "reverse-path": row[REVERSE_PATH],
            "recipients": " ".join(f"<{recipient}>" for recipient in row[RECIPIENTS]),
            "body": row[BODY],
            "body-type": ("7bit", "8bitmime")[row[BODY_TYPE]],
            "smtputf8": "yes" if row[SMTPUTF8] else "no",
            "helo": row[HELO],
            "dsn": shown_dsn(row[DSN]),
            "username": (await self._store.usernames())[row[CREDENTIAL_ID]],
        }[name]
        given = found if isinstance(found, bytes) else found.encode()
        assert value.fullmatch(given), given


def shown_dsn(dsn: DsnRow | None) -> str:
    """`FULL id | SUCCESS,DELAY rfc822;a | - -`; `-` is what was not given."""
    if dsn is None:
        return "-"
    ret, envid, recipients = dsn
    parts = [f"{'-' if ret is None else Ret(ret).name} {envid or '-'}"]
    parts += [f"{'-' if bits is None else Notify(bits).keywords} {orcpt or '-'}" for bits, orcpt in recipients]
    return " | ".join(parts)


@contextlib.asynccontextmanager
async def listening(
    dialog: Dialog, smtp_settings: dict[str, Any]
) -> AsyncIterator[tuple[CoreServer, ScriptedStore, dict[str, Address]]]:
    """The service as it is, but for what it stands on."""
    settings = settings_for(dialog, smtp_settings)
    store, stream, shared = ScriptedStore(dialog.options), MemoryServer(), FakeShared()
    tenant = await store.create_tenant("dialogs")
    store.tenant = tenant.id
    senders = dialog.options["senders"].split(",") if "senders" in dialog.options else []
    await store.create_credential(tenant.id, USERNAME, HASH, senders)
    await store.add_certificate(USERNAME, f"dns:{CLIENT}")
    preset = await store.create_credential(tenant.id, PRESET, HASH, senders)
    identity = Identity(tenant.id, preset.id, PRESET, preset.allowed_senders)
    core = serve.make_core(settings, serve.read_certificates(settings), identity)
    service = serve.Service(settings, Lifecycle(1), store, core, MemoryPublisher(stream), MemoryDepth(stream), shared)
    try:
        addresses = service.start()
        await obey(dialog, store, shared, service)
        yield core, store, addresses
    finally:
        await service.leave()


async def obey(dialog: Dialog, store: ScriptedStore, shared: FakeShared, service: serve.Service) -> None:
    """The script, where it is of a tenant's limits."""
    if dialog.options.get("envelope") == "over_rate":
        shared.delays = [[60.0]]
        await store.set_tenant_limits("dialogs", TenantLimits(messages_per_minute=1))
        async with asyncio.timeout(ANSWER_SECONDS):
            while not service.limiter.is_shared:
                await asyncio.sleep(0)
    if dialog.options.get("login") == "crowded":
        shared.elsewhere = {store.tenant: 1}
        await store.set_tenant_limits("dialogs", TenantLimits(sessions=1))
        async with asyncio.timeout(ANSWER_SECONDS):
            while not shared.said:
                await asyncio.sleep(0)
        await settle()


def settings_for(dialog: Dialog, smtp_settings: dict[str, Any]) -> Settings:
    """With the dialog's limits, some of which are below what an operator may set."""
    fixes = {
        "smtp_add_missing_headers": dialog.options.get("headers") == "complete",
        "smtp_strip_bcc": dialog.options.get("bcc") != "keep",
    }
    given = {**smtp_settings, **fixes, "smtp_plaintext_port": 0}
    if "certificate" in dialog.options:
        given |= {
            "tls_client_auth": "optional",
            "tls_client_ca_file": smtp_settings["tls_cert_file"].with_name("ca.pem"),
        }
    loaded = Settings.load(given, {})
    limits = [option for option in dialog.options.items() if option[0].startswith("limits.")]
    return loaded.model_copy(update={SETTING_OF[name.removeprefix("limits.")]: int(value) for name, value in limits})


async def replay(path: Path, smtp_settings: dict[str, Any], tls: ssl.SSLContext, piece: int | None = None) -> None:
    dialog = Dialog.read(path)
    if "certificate" in dialog.options:
        authority = smtp_settings["tls_cert_file"].with_name("ca.pem")
        tls = ssl.create_default_context(cafile=authority)
        tls.load_cert_chain(next(authority.parent.glob(f"{CLIENT}-*.pem")))
    async with listening(dialog, smtp_settings) as (core, store, addresses):
        await Replay(dialog, core, store, tls).run(addresses[dialog.options["listener"]], piece)


def skipped(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.skip(reason=SKIPPED[name])] if name in SKIPPED else []


WHOLE = [pytest.param(path, id=path.stem, marks=skipped(path.stem)) for path in FILES]
CUT = [pytest.param(path, id=path.stem) for path in FILES if path.stem not in SKIPPED | ONE_PACKET]


@pytest.fixture(scope="module", autouse=True)
def client_certificate(authority: Authority) -> None:
    """For dialogs with `certificate=client`."""
    authority.issue(CLIENT)


@pytest.mark.parametrize("path", WHOLE)
async def test_as_written(path: Path, smtp_settings: dict[str, Any], client_tls: ssl.SSLContext) -> None:
    await replay(path, smtp_settings, client_tls)


@pytest.mark.parametrize("path", CUT)
async def test_cut_into_pieces(path: Path, smtp_settings: dict[str, Any], client_tls: ssl.SSLContext) -> None:
    await replay(path, smtp_settings, client_tls, piece=7)


def test_what_is_left_out_exists() -> None:
    assert {*SKIPPED, *ONE_PACKET} <= {path.stem for path in FILES}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("S: 220 *\nC: NOOP\nS: 251 *\n", "got"),
        ("S: 220 *\nC: NOOP\nC: QUIT\nS: 250 *\nCLOSED\n", "more than was expected"),
        ("S: 220 *\nE: body x\n", "list index"),
    ],
)
async def test_the_replay_itself_can_fail(
    tmp_path: Path, smtp_settings: dict[str, Any], client_tls: ssl.SSLContext, text: str, complaint: str
) -> None:
    wrong = tmp_path / "wrong.smtp"
    wrong.write_text(f"# wrong\noptions: listener=tls\n{text}")
    with pytest.raises((AssertionError, IndexError), match=complaint):
        await replay(wrong, smtp_settings, client_tls)


def test_how_a_line_is_read() -> None:
    assert matches("250 2.0.0 queued as *", "250 2.0.0 queued as x\r\n")
    assert matches("*a*c", "bac")
    assert not matches("a*c", "ab")
    assert wanted(r"a\*c\r\n").fullmatch(b"a\r\nc\r\n")
    assert not wanted(r"a\*c").fullmatch(b"abcd")
    assert repeated("a{bc}*3d{e}*2") == "abcbcbcdee"
    assert unescaped(r"a\r\n\0\\\xff") == b"a\r\n\0\\\xff"
