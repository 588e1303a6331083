"""Certificates as files: whole or not at all, keys for their owner alone."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import Authority
from ledger_harness.disk import Disk

from smtp_proxy.certfiles import files
from smtp_proxy.certfiles.check import check
from smtp_proxy.certfiles.sync import CertificateSync
from smtp_proxy.clock import ManualClock, SystemClock
from smtp_proxy.errors import CertificateProblem, ConfigurationError, SmtpProxyError
from smtp_proxy.model.certificate import StoredCertificate
from smtp_proxy.sealing import SecretKeys
from smtp_proxy.store import MemoryStore
from smtp_proxy.store.ids import new_id

KEYS = SecretKeys({"k1": bytes(32)})


def pem(authority: Authority, *names: str, days: int = 1) -> tuple[bytes, bytes]:
    both = authority.issue(*names, days=days).read_bytes()
    at = both.index(b"-----BEGIN PRIVATE KEY")
    return both[:at], both[at:]


def stored(authority: Authority, name: str, *names: str, days: int = 1) -> StoredCertificate:
    chain, key = pem(authority, *names, days=days)
    now = datetime.now(UTC)
    certificate = StoredCertificate(
        new_id(now), name, names, chain.decode(), KEYS.seal(b"", ""), now, now + timedelta(days=days)
    )
    return replace(certificate, sealed=KEYS.seal(key, certificate.context))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "certs"
    files.check_directory(made)
    return made


def test_modes_and_contents(directory: Path) -> None:
    """REQ-INFRA-TLS-012: whatever the umask, a key is its owner's alone."""
    before = os.umask(0)
    try:
        files.write_certificate(directory, "*.example.com", b"chain", b"key", "id")
    finally:
        os.umask(before)
    folder = directory / "_.example.com"
    assert {p.name: (p.read_bytes(), stat.S_IMODE(p.stat().st_mode)) for p in folder.iterdir()} == {
        "fullchain.pem": (b"chain", 0o644),
        "privkey.pem": (b"key", 0o600),
        ".from-store": (b"id\n", 0o644),
    }
    assert files.mark_of(directory, "*.example.com") == "id"
    (folder / "ocsp.der").write_bytes(b"of the old one")
    files.write_certificate(directory, "*.example.com", b"chain 2", b"key 2")
    assert files.mark_of(directory, "*.example.com") == ""
    assert not (folder / "ocsp.der").exists()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 201, "ä"])
def test_a_name_stays_below_the_directory(directory: Path, name: str) -> None:
    with pytest.raises(CertificateProblem, match="certificate name"):
        files.write_certificate(directory, name, b"", b"")


def test_a_writing_that_breaks_off_is_done_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_certificate(directory, "mx", b"chain", b"key", "one")
    replaced = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if target.name == "fullchain.pem":
            raise OSError(28, "No space left on device", str(self))
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(CertificateProblem, match="No space left on device"):
        files.write_certificate(directory, "mx", b"chain 2", b"key 2", "two")
    monkeypatch.undo()
    assert files.mark_of(directory, "mx") is None
    assert (directory / "mx/fullchain.pem").read_bytes() == b"chain"
    files.write_certificate(directory, "mx", b"chain 2", b"key 2", "two")
    assert files.mark_of(directory, "mx") == "two"
    assert [p.name for p in (directory / "mx").iterdir() if p.name.endswith(".part")] == []


def test_a_full_disk_leaves_the_old_pair(directory: Path) -> None:
    """A size limit refuses the write itself, as a full disk does."""
    files.write_certificate(directory, "mx", b"chain", b"key", "one")
    child = os.fork()
    if child == 0:
        import resource  # noqa: PLC0415
        import signal  # noqa: PLC0415

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
        try:
            files.write_certificate(directory, "mx", b"c" * 4096, b"k" * 10, "two")
        except CertificateProblem as error:
            os._exit(0 if "File too large" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (directory / "mx/fullchain.pem").read_bytes() == b"chain"
    assert (directory / "mx/privkey.pem").read_bytes() == b"key"
    assert files.mark_of(directory, "mx") is None


@pytest.mark.parametrize(("mode", "reason"), [(0o777, "others may write"), (0o775, "others may write")])
def test_a_directory_that_others_write_in_is_refused(directory: Path, mode: int, reason: str) -> None:
    directory.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"TLS_CERT_DIR: {reason}.*chmod"):
        files.check_directory(directory)


def test_a_key_that_others_read_is_refused(directory: Path) -> None:
    files.write_certificate(directory, "mx", b"chain", b"key", "one")
    (directory / "mx/privkey.pem").chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"others may read the key.*chmod 600"):
        files.check_directory(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a directory away")
def test_a_directory_of_another_user_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(directory, 4711, 4711)
    with pytest.raises(ConfigurationError, match=r"belongs to the user 4711.*chown"):
        files.check_directory(directory)


def test_what_does_not_go_together_is_refused(authority: Authority) -> None:
    now = datetime.now(UTC)
    chain, key = pem(authority, "mx.example.com")
    _, other = pem(authority, "mx.example.com")
    assert check(chain, key, ["MX.example.com"], now, "mx").names == ("mx.example.com",)
    stranger, _ = pem(authority, "other.example.com")
    for bad_chain, bad_key, names, when, reason in (
        (chain, other, [], now, "the key is not that of the certificate"),
        (chain[: len(chain) // 2], key, [], now, "half of one"),
        (b"", key, [], now, "no PEM certificate"),
        (chain, key[:40], [], now, "no unencrypted PEM key"),
        (chain, key, ["mx.example.org"], now, "not for mx.example.org but for mx.example.com"),
        (chain, key, [], now + timedelta(days=3), "expired"),
        (chain, key, [], now - timedelta(days=400), "not valid before.*clock"),
        (chain + stranger, key, [], now, "chain is broken"),
    ):
        with pytest.raises(CertificateProblem, match=reason) as caught:
            check(bad_chain, bad_key, names, when, "mx")
        assert "PRIVATE" not in str(caught.value)


class TestSync:
    async def test_the_store_comes_into_the_files_and_goes(self, authority: Authority, directory: Path) -> None:
        """REQ-INFRA-TLS-005."""
        store = MemoryStore()
        sync = CertificateSync(directory, KEYS, store, store._clock)
        first, second = stored(authority, "mx", "mx.example.com"), stored(authority, "mx", "mx.example.com")
        await store.add_fleet_certificate(first)
        assert await sync.once() == []
        assert (directory / "mx/fullchain.pem").read_text() == first.chain
        before = (directory / "mx/fullchain.pem").stat().st_mtime_ns
        await sync.once()
        assert (directory / "mx/fullchain.pem").stat().st_mtime_ns == before, "it was written again for nothing"
        await store.add_fleet_certificate(second)
        await sync.once()
        assert (directory / "mx/fullchain.pem").read_text() == second.chain
        await store.set_fleet_certificate_state(second.id, "revoked")
        await sync.once()
        assert not (directory / "mx").exists()

    async def test_it_follows_what_the_store_tells(self, authority: Authority, directory: Path) -> None:
        store, done = MemoryStore(), asyncio.Event()
        task = asyncio.create_task(CertificateSync(directory, KEYS, store, store._clock).run(done.set))
        try:
            async with asyncio.timeout(5):
                await done.wait()
                done.clear()
                await store.add_fleet_certificate(stored(authority, "mx", "mx.example.com"))
                await done.wait()
            assert files.mark_of(directory, "mx")
        finally:
            task.cancel()

    async def test_bad_ones_are_not_written(
        self, authority: Authority, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = MemoryStore()
        good, other = stored(authority, "mx", "mx.example.com"), stored(authority, "mx", "mx.example.com")
        sync = CertificateSync(directory, KEYS, store, store._clock)
        await store.add_fleet_certificate(good)
        await sync.once()
        swapped = replace(other, id=new_id(datetime.now(UTC)))  # its seal is bound to another row
        await store.add_fleet_certificate(swapped)
        with caplog.at_level(logging.ERROR):
            assert await sync.once() == await sync.once() == ["mx"]
        assert (directory / "mx/fullchain.pem").read_text() == good.chain
        assert len([r for r in caplog.records if r.action == "certificate_refused"]) == 1, "told once"

    async def test_what_was_placed_by_hand_stays(self, authority: Authority, directory: Path) -> None:
        authority.pair(directory / "mx", "mx.example.com")
        placed, store = (directory / "mx/fullchain.pem").read_bytes(), MemoryStore()
        await store.add_fleet_certificate(stored(authority, "mx", "mx.example.com"))
        sync = CertificateSync(directory, KEYS, store, store._clock)
        assert await sync.once() == ["mx"]
        await store.set_fleet_certificate_state((await store.list_fleet_certificates())[0].id, "removed")
        assert await sync.once() == []
        assert (directory / "mx/fullchain.pem").read_bytes() == placed

    async def test_what_has_expired_goes_where_there_is_another(
        self, authority: Authority, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The core takes all or none: beside one that ended no other could be renewed."""
        store, clock = MemoryStore(), ManualClock(datetime.now(UTC) + timedelta(seconds=1))
        sync = CertificateSync(directory, KEYS, store, clock)
        old = stored(authority, "old", "old.example.com")
        await store.add_fleet_certificate(old)
        await sync.once()
        clock.advance(timedelta(days=1, hours=1).total_seconds())
        with caplog.at_level(logging.ERROR):
            assert await sync.once() == await sync.once() == []
        assert (directory / "old").exists(), "there is no other, and an empty set is refused"
        assert [r.action for r in caplog.records] == ["certificate_refused"], "told once"
        await store.add_fleet_certificate(stored(authority, "mx", "mx.example.com", days=9))
        assert await sync.once() == []
        assert files.folders(directory) == files.marked_folders(directory) == ["mx"]
        await store.set_fleet_certificate_state(old.id, "removed")
        assert await sync.once() == []

    async def test_what_begins_in_a_minute_waits(self, authority: Authority, directory: Path) -> None:
        """The core would refuse all of them for it."""
        store = MemoryStore()
        certificate = stored(authority, "mx", "mx.example.com")
        await store.add_fleet_certificate(
            replace(certificate, not_before=certificate.not_before + timedelta(minutes=2))
        )
        clock = ManualClock(certificate.not_before + timedelta(minutes=1))
        sync = CertificateSync(directory, KEYS, store, clock)
        assert await sync.once() == ["mx"]
        clock.advance(61)
        assert await sync.once() == []
        assert files.mark_of(directory, "mx") == str(certificate.id)

    async def test_a_clock_that_is_wrong_changes_nothing(self, authority: Authority, directory: Path) -> None:
        store = MemoryStore()
        await store.add_fleet_certificate(stored(authority, "mx", "mx.example.com"))
        sync = CertificateSync(directory, KEYS, store, ManualClock(datetime(2001, 1, 1, tzinfo=UTC)))
        assert await sync.once() == ["mx"]
        assert not (directory / "mx").exists()


def test_nothing_shows_a_key(authority: Authority) -> None:
    """REQ-INFRA-TLS-012."""
    certificate = stored(authority, "mx", "mx.example.com")
    assert "sealed" not in repr(certificate)
    assert "BEGIN" not in repr(certificate)
    assert issubclass(CertificateProblem, SmtpProxyError)


async def test_a_disk_that_is_full_and_then_is_not(authority: Authority, tmp_path: Path) -> None:
    """The pair that was there stays as it was, to its last byte; the new one is written whole when there is room."""
    disk, store = Disk(tmp_path / "certs", size_mb=1), MemoryStore()
    with disk.mounted():
        if not disk.can_be_full:
            pytest.skip("only root may mount a small disk")
        disk.folder.chmod(0o755)
        sync = CertificateSync(disk.folder, KEYS, store, SystemClock())
        first, second = stored(authority, "mx", "mx.example.com"), stored(authority, "mx", "mx.example.com")
        await store.add_fleet_certificate(first)
        assert await sync.once() == []
        before = {file.name: file.read_bytes() for file in (disk.folder / "mx").iterdir()}
        await store.add_fleet_certificate(second)
        disk.fill()
        assert await sync.once() == ["mx"]
        assert (disk.folder / "mx/fullchain.pem").read_bytes() == first.chain.encode()
        assert (disk.folder / "mx/privkey.pem").read_bytes() == before["privkey.pem"]
        disk.free()
        assert await sync.once() == []
        assert (disk.folder / "mx/fullchain.pem").read_bytes() == second.chain.encode()
        assert not list((disk.folder / "mx").glob(".*.part"))
