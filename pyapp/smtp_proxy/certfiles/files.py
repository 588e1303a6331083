"""One certificate as files: `NAME/fullchain.pem` (0644) and `NAME/privkey.pem` (0600) in TLS_CERT_DIR.

Each file is put in place whole and is on disk before the next: a crash leaves the old one or the new one. Between key
and chain the pair does not fit, which readers refuse and look again (`ingress/reload.py`).
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

from smtp_proxy.errors import CertificateProblem, ConfigurationError

CHAIN_NAME: Final = "fullchain.pem"
KEY_NAME: Final = "privkey.pem"
_STAPLE_NAME: Final = "ocsp.der"
# Which certificate of the store is in a folder: its id; `-` while that changes.
_MARK_NAME: Final = ".from-store"
_CHANGING: Final = "-"
_FOLDER: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,199}")


def folder_name(name: str) -> str:
    """The name of a certificate as it can be a folder: `*.example.com` is `_.example.com`.

    Raises CertificateProblem: it can not be one.
    """
    found = name.lower().replace("*", "_")
    if not _FOLDER.fullmatch(found):
        raise CertificateProblem(
            f"certificate name {name!r}: write letters, digits, dots, hyphens and underscores, 200 at most"
        )
    return found


def write_certificate(directory: Path, name: str, chain: bytes, key: bytes, mark: str = "") -> None:
    """Put PEM chain and key in place of what is there; `mark`: the id of the certificate in the store.

    Raises CertificateProblem: names the file and the reason, such as a full disk; what was there may be half replaced
    then, and is no longer marked, so that it is written again.
    """
    folder = directory / folder_name(name)
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        _sync(directory)
        _mark(folder, _CHANGING if mark else "")
        # Room for both is made before either counts.
        parts = [_part(folder / KEY_NAME, key, 0o600), _part(folder / CHAIN_NAME, chain, 0o644)]
        (folder / _STAPLE_NAME).unlink(missing_ok=True)  # It is about the certificate before.
        for part, file in zip(parts, (KEY_NAME, CHAIN_NAME), strict=True):
            part.replace(folder / file)
        _sync(folder)
        _mark(folder, mark)
    except OSError as error:
        raise CertificateProblem(f"TLS_CERT_DIR: can not write {error.filename or folder}: {error.strerror}") from None


def write_copy(folder: Path, chain: bytes, key: bytes | None) -> list[Path]:
    """Write the chain (0644), and the key (0600) if it is given, for somebody else's use; returns the files.

    Raises CertificateProblem.
    """
    contents = [(KEY_NAME, key, 0o600)] if key is not None else []
    written = []
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, content, mode in (*contents, (CHAIN_NAME, chain, 0o644)):
            written.append(_part(folder / name, content, mode).replace(folder / name))
        _sync(folder)
    except OSError as error:
        raise CertificateProblem(f"--out: can not write {error.filename or folder}: {error.strerror}") from None
    return written


def write_response(file: Path, response: bytes) -> None:
    """Put an OCSP response (0644) in its place whole. Raises CertificateProblem."""
    try:
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _part(file, response, 0o644).replace(file)
        _sync(file.parent)
    except OSError as error:
        raise CertificateProblem(f"DATA_DIR: can not write {error.filename or file}: {error.strerror}") from None


def mark_of(directory: Path, name: str) -> str | None:
    """The id of the certificate that is in this folder; "": it was placed by hand; None: none, or not all of it."""
    folder = directory / folder_name(name)
    there = [(folder / file).exists() for file in (CHAIN_NAME, KEY_NAME)]
    try:
        mark = (folder / _MARK_NAME).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "" if any(there) or any((folder / other).exists() for other in ("cert.pem", "key.pem")) else None
    return mark if all(there) and mark != _CHANGING else None


def marked_folders(directory: Path) -> list[str]:
    """The folders that hold a certificate of the store."""
    return sorted(path.parent.name for path in directory.glob(f"*/{_MARK_NAME}"))


def folders(directory: Path) -> list[str]:
    """All that hold a chain, of the store or placed by hand."""
    return sorted({path.parent.name for name in (CHAIN_NAME, "cert.pem") for path in directory.glob(f"*/{name}")})


def remove_certificate(directory: Path, name: str) -> None:
    """Take a folder of the store away. Raises CertificateProblem."""
    folder = directory / folder_name(name)
    try:
        for file in (CHAIN_NAME, KEY_NAME, _STAPLE_NAME, _MARK_NAME):  # The mark last: what is left is still ours.
            (folder / file).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise CertificateProblem(f"TLS_CERT_DIR: can not remove {error.filename or folder}: {error.strerror}") from None


def check_directory(directory: Path) -> None:
    """Make it if it is missing, and see that keys are safe in it.

    Raises ConfigurationError: it is another user's, others may write in it, or it can not be written.
    """
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise ConfigurationError(f"TLS_CERT_DIR: can not make {directory}: {error.strerror}") from None
    user = os.geteuid()
    if found.st_uid not in (user, 0):
        raise ConfigurationError(
            f"TLS_CERT_DIR: {directory} belongs to the user {found.st_uid}, and this is {user}: chown it"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"TLS_CERT_DIR: others may write in {directory} (mode {stat.S_IMODE(found.st_mode):04o}): chmod 755 it"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(f"TLS_CERT_DIR: {directory} can not be written by the user {user}: chown it")
    for key in directory.glob(f"*/{KEY_NAME}"):
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(f"TLS_CERT_DIR: others may read the key {key} (mode {mode:04o}): chmod 600 it")


# -- below


def _mark(folder: Path, mark: str) -> None:
    """Say whose it is, on disk; "": nobody's of ours."""
    file = folder / _MARK_NAME
    if mark:
        _part(file, f"{mark}\n".encode(), 0o644).replace(file)
    else:
        file.unlink(missing_ok=True)
    _sync(folder)


def _part(file: Path, content: bytes, mode: int) -> Path:
    """The content beside its place, on disk."""
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        os.fchmod(out.fileno(), mode)  # whatever the umask
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    return part


def _sync(directory: Path) -> None:
    """What was renamed in it stays renamed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
