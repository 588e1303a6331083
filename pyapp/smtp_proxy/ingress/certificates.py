"""The certificate files: which there are, what is in them, and whether they changed.

A pair is TLS_CERT_FILE with TLS_KEY_FILE, and each folder of TLS_CERT_DIR (`NAME/fullchain.pem` or `cert.pem`, with
`privkey.pem` or `key.pem`, as ACME clients leave them). The first pair is the default. Whether a certificate can serve
is the core's to say; only what is stapled to it is looked at here (`ocsp`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from smtp_proxy.certfiles.origin import refuse_in_production
from smtp_proxy.errors import CertificateProblem, ConfigurationError
from smtp_proxy.ingress import ocsp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from smtp_proxy.config import Settings
    from smtp_proxy.core import Certificate

CHAIN_NAMES: Final = ("fullchain.pem", "cert.pem")
KEY_NAMES: Final = ("privkey.pem", "key.pem")
OCSP_NAME: Final = "ocsp.der"

# Of each path: modification time in ns, size in bytes, inode; None where there is no file.
Stamp: TypeAlias = dict[str, tuple[int, int, int] | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """One certificate with its key, as its files are now."""

    name: str  # its folder's, or "" for TLS_CERT_FILE
    label: str  # settings and files, for errors
    chain: bytes
    key: bytes
    staple: ocsp.Staple

    def __repr__(self) -> str:
        return f"Pair({self.label})"


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """All that is served, and whose client certificates are taken."""

    pairs: tuple[Pair, ...]  # the first is the default
    client_ca: bytes = b""
    client_crl: bytes = b""

    def for_core(self) -> list[Certificate]:
        return [(pair.chain, pair.key, pair.staple.response, pair.label) for pair in self.pairs]

    def renewal_of_staples(self) -> datetime | None:
        """When the first staple ends to be fresh, and should no longer be shown."""
        return min((pair.staple.until for pair in self.pairs if pair.staple.until is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Files:
    name: str
    label: str
    settings: tuple[str, str, str]  # that name chain, key and response
    chain: Path
    key: Path
    response: Path | None


def are_there(settings: Settings) -> bool:
    """Whether there is any, good or bad."""
    return next(iter(_all_files(settings)), None) is not None


def read(settings: Settings, now: datetime) -> CertificateSet:
    """Read every file.

    Raises:
        ConfigurationError: there is no certificate, or TLS_DEFAULT_NAME is none of them.
        CertificateProblem: names the file that can not be read, or that is not for production.
    """
    pairs = [_pair(settings, files, now) for files in _all_files(settings)]
    if settings.mode == "production":
        for pair in pairs:
            refuse_in_production(pair.chain, pair.label)
    if not pairs:
        raise ConfigurationError(
            "TLS_CERT_FILE and TLS_KEY_FILE are not set, and TLS_CERT_DIR has no certificate: nobody could log in; "
            "`smtp-proxy dev` makes a pair of its own"
        )
    if settings.tls_default_name:
        pairs.sort(key=lambda pair: not is_called(pair, settings.tls_default_name))  # stable
        if not is_called(pairs[0], settings.tls_default_name):
            raise ConfigurationError(
                f"TLS_DEFAULT_NAME: no certificate is for {settings.tls_default_name}; there are "
                + ", ".join(pair.name or pair.label for pair in pairs)
            )
    asked = settings.tls_client_auth != "none"
    return CertificateSet(
        tuple(pairs),
        _read("TLS_CLIENT_CA_FILE", settings.tls_client_ca_file) if asked else b"",
        _read("TLS_CLIENT_CRL_FILE", settings.tls_client_crl_file) if asked else b"",
    )


def stamp(settings: Settings) -> Stamp:
    """What the file system says of each file; it differs when one was written, replaced, added or taken away."""
    # Whatever is put in place in the folder of responses changes the folder.
    paths = [settings.tls_client_ca_file, settings.tls_client_crl_file, fetched_folder(settings)]
    try:
        for files in _all_files(settings):
            paths += files.chain, files.key, files.response
    except CertificateProblem:
        paths.append(settings.tls_cert_dir)  # A half of a pair, or a folder that is gone: see whether that changes.
        paths += (path for folder in _folders(settings) for path in _candidates(folder))
    return {str(path): _stat(path) for path in paths if path is not None}


# -- below


def _all_files(settings: Settings) -> Iterator[_Files]:
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        chain, key = settings.tls_cert_file, settings.tls_key_file
        names = ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_OCSP_FILE")
        yield _Files("", f"TLS_CERT_FILE, TLS_KEY_FILE: {chain}, {key}", names, chain, key, settings.tls_ocsp_file)
    for folder in _folders(settings):
        if (found := _in_folder(folder)) is not None:
            yield found


def _in_folder(folder: Path) -> _Files | None:
    """None: not everything beside certificates is one (lost+found). Raises CertificateProblem for a half of a pair."""
    chain, key = _first_there(folder, CHAIN_NAMES), _first_there(folder, KEY_NAMES)
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        missing = " or ".join(CHAIN_NAMES if chain is None else KEY_NAMES)
        raise CertificateProblem(f"TLS_CERT_DIR: {folder} has no {missing}")
    names = ("TLS_CERT_DIR", "TLS_CERT_DIR", "TLS_CERT_DIR")
    return _Files(folder.name, f"TLS_CERT_DIR: {chain}, {key}", names, chain, key, folder / OCSP_NAME)


def _folders(settings: Settings) -> list[Path]:
    directory = settings.tls_cert_dir
    if directory is None:
        return []
    try:
        # Hidden ones are the working copies of tools (Kubernetes: ..data).
        return sorted(path for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise CertificateProblem(f"TLS_CERT_DIR: can not read {directory}: {error.strerror}") from None


def _candidates(folder: Path) -> Iterator[Path]:
    return (folder / name for name in (*CHAIN_NAMES, *KEY_NAMES, OCSP_NAME))


def _first_there(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _pair(settings: Settings, files: _Files, now: datetime) -> Pair:
    of_chain, of_key, of_response = files.settings
    chain, key = _read(of_chain, files.chain), _read(of_key, files.key)
    response = b""
    if files.response is not None and (of_response == "TLS_OCSP_FILE" or files.response.exists()):
        response = _read(of_response, files.response)
    staple = ocsp.staple(response, chain, now)
    if not staple.response and (fetched := fetched_file(settings, chain)).exists():
        other = ocsp.staple(_read("DATA_DIR", fetched), chain, now)
        staple = other if other.response or not staple.refused else staple
    return Pair(files.name, files.label, chain, key, staple)


def fingerprint(chain: bytes) -> str:
    """Of the first certificate of a PEM chain, SHA-256 in hex; "": it can not be read."""
    try:
        return x509.load_pem_x509_certificates(chain)[0].fingerprint(hashes.SHA256()).hex()
    except (ValueError, IndexError):
        return ""


def fetched_folder(settings: Settings) -> Path:
    """Where responses are kept that were fetched."""
    return settings.data_dir / "ocsp"


def fetched_file(settings: Settings, chain: bytes) -> Path:
    """The response for a chain, if one was fetched."""
    return fetched_folder(settings) / f"{fingerprint(chain) or 'unreadable'}.der"


def is_called(pair: Pair, name: str) -> bool:
    """Its folder's name, or one that it is for."""
    return name.lower() in (pair.name.lower(), *served_names(pair.chain))


def served_names(chain: bytes) -> list[str]:
    """The names of a PEM chain's first certificate, DNS names in lower case; none if it can not be read."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, IndexError, x509.ExtensionNotFound):
        return []
    dns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return dns + [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def _read(setting: str, path: Path | None) -> bytes:
    try:
        return b"" if path is None else path.read_bytes()
    except OSError as error:
        raise CertificateProblem(f"{setting}: can not read {path}: {error.strerror}") from None


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
