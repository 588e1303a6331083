"""One CA and our account there, by the `acme` library (RFC 8555). Everything here blocks: call it in a thread.

Not here: when to ask, and how challenges are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import josepy as jose
import requests
from acme import challenges, client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from smtp_proxy.errors import ConfigurationError, IssuanceFailed
from smtp_proxy.model.certificate import Challenge

_USER_AGENT: Final = "smtp-proxy"
_TIMEOUT_SECONDS: Final = 30
_NONCE_TRIES: Final = 5  # RFC 8555 6.5: another try with a fresh one
# Answers to an order that names what it replaces, after which it is opened without. Pebble does not always find a
# certificate that it has just issued, and calls that its own error.
_ABOUT_THE_HINT: Final = frozenset({"alreadyReplaced", "malformed", "unauthorized", "serverInternal"})
_KINDS: Final[dict[Challenge, type[challenges.KeyAuthorizationChallenge]]] = {
    "http-01": challenges.HTTP01,
    "dns-01": challenges.DNS01,
}


@dataclass(frozen=True, slots=True)
class Binding:
    """External account binding (RFC 8555 7.3.4)."""

    kid: str
    hmac_key: str = field(repr=False)  # base64url


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves control of one name."""

    domain: str  # without `*.`
    token: str
    content: str = field(repr=False)  # HTTP-01: the key authorization; DNS-01: the TXT record's text
    body: messages.ChallengeBody = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """An order at the CA, with what is still to be proved; authorizations that stand are not asked for again."""

    order: messages.OrderResource = field(repr=False)
    proofs: tuple[Proof, ...]


class Ca:
    """An ACME directory with an account's key. `register` or `kid` first."""

    def __init__(self, url: str, key: bytes, kid: str = "", ca_file: Path | None = None) -> None:
        """`key`: PEM, P-256. `ca_file`: whom to trust for the directory's own TLS, beside nobody else.

        Raises IssuanceFailed: the CA can not be reached.
        """
        private = serialization.load_pem_private_key(key, None)
        self._jwk = jose.JWKEC(key=jose.ComparableECKey(private))  # type: ignore[arg-type]
        self._net = _Network(self._jwk, ca_file)
        with self._net.explaining(f"asking the CA at {url}"):
            directory = client.ClientV2.get_directory(url, self._net)
        self._client = client.ClientV2(directory, self._net)
        self._net.new_order_url = directory["newOrder"]
        if kid:
            self._net.account = messages.RegistrationResource(uri=kid, body=messages.Registration())

    def register(self, contact: str, binding: Binding | None) -> str:
        """Make the account, or find the one of this key; returns its URL. Raises ConfigurationError, IssuanceFailed."""
        if self._client.external_account_required() and binding is None:
            raise ConfigurationError("ACME_EAB_KID and ACME_EAB_HMAC_FILE: this CA wants an external account binding")
        wanted: dict[str, Any] = {"terms_of_service_agreed": True, "contact": (f"mailto:{contact}",) if contact else ()}
        if binding is not None:
            wanted["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                self._jwk.public_key(), binding.kid, binding.hmac_key, self._client.directory
            )
        with self._net.explaining("making an account"):
            try:
                account = self._client.new_account(messages.NewRegistration(**wanted))
            except errors.ConflictError as known:
                account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
                self._net.account = account
        return str(account.uri)

    def open(self, request: bytes, challenge: Challenge, profile: str, replaces: str = "") -> Opened:
        """Open an order for a PEM request. `replaces`: the PEM chain of the certificate before (RFC 9773 5)."""
        self._net.replaces = _renewal_id(replaces) if replaces and "renewalInfo" in self._directory else ""
        with self._net.explaining("opening an order"):
            try:
                order = self._client.new_order(request, profile or None)
            except messages.Error as error:
                if not self._net.replaces or error.code not in _ABOUT_THE_HINT:
                    raise
                self._net.replaces = ""  # Somebody replaced it before, or the CA does not know it: it is only a hint.
                order = self._client.new_order(request, profile or None)
        pending = [a for a in order.authorizations if a.body.status == messages.STATUS_PENDING]
        return Opened(order, tuple(self._proof(each, challenge) for each in pending))

    def finish(self, opened: Opened, patience_seconds: float) -> str:
        """Have the proofs looked at and fetch the PEM chain. Raises IssuanceFailed."""
        # The library compares with the machine's clock, without a zone.
        deadline = datetime.now() + timedelta(seconds=patience_seconds)  # noqa: DTZ005
        with self._net.explaining("getting the certificate"):
            for proof in opened.proofs:
                self._client.answer_challenge(proof.body, proof.body.chall.response(self._jwk))
            order = self._client.poll_authorizations(opened.order, deadline)
            return str(self._client.finalize_order(order, deadline).fullchain_pem)

    def renewal(self, chain: str) -> tuple[datetime | None, datetime]:
        """When the CA suggests to renew (None: it does not say), and when to ask it again. Raises IssuanceFailed."""
        with self._net.explaining("asking when to renew"):
            at, again = self._client.renewal_time(_leaf(chain))
        return at, again.astimezone(UTC)

    def revoke(self, chain: str, reason: int) -> None:
        """RFC 8555 7.6; reasons as in RFC 5280 5.3.1. Raises IssuanceFailed."""
        with self._net.explaining("revoking a certificate"):
            self._client.revoke(x509.load_pem_x509_certificate(_leaf(chain)), reason)

    @property
    def _directory(self) -> dict[str, Any]:
        return dict(self._client.directory.to_partial_json())

    def _proof(self, authorization: messages.AuthorizationResource, challenge: Challenge) -> Proof:
        kind, domain = _KINDS[challenge], authorization.body.identifier.value
        for body in authorization.body.challenges:
            if isinstance(body.chall, kind):
                return Proof(domain, body.chall.encode("token"), body.chall.validation(self._jwk), body)
        raise IssuanceFailed(f"the CA does not offer {challenge} for {domain}: declare another challenge")


def new_key() -> bytes:
    """ECDSA P-256 as PEM (PKCS #8)."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: bytes, names: Sequence[str]) -> bytes:
    """PEM, for these DNS names."""
    private = serialization.load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise TypeError("a P-256 key is wanted")
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(alternatives, critical=False).sign(private, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


# -- below


class _Network(client.ClientNetwork):
    """Remembers what CAs say when they refuse, and names the certificate that an order replaces."""

    def __init__(self, key: jose.JWK, ca_file: Path | None) -> None:
        super().__init__(key, alg=jose.ES256, user_agent=_USER_AGENT, timeout=_TIMEOUT_SECONDS)
        if ca_file is not None:
            self.verify_ssl = str(ca_file)  # type: ignore[assignment] # `requests` takes a path too
        self.retry_after: datetime | None = None
        self.new_order_url = ""
        self.replaces = ""
        self.session.hooks["response"].append(self._look)

    def post(self, url: str, obj: Any, *args: Any, **kwargs: Any) -> requests.Response:
        """The library has no word for `replaces` yet, and takes a second bad nonce in a row for the end."""
        if self.replaces and url == self.new_order_url:
            obj = _Replacing(obj, self.replaces)
        for _ in range(_NONCE_TRIES - 1):
            try:
                return super().post(url, obj, *args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(url, obj, *args, **kwargs)

    def explaining(self, doing: str) -> _Explaining:
        """Turn what goes wrong within into IssuanceFailed."""
        self.retry_after = None
        return _Explaining(self, doing)

    def _look(self, response: requests.Response, *_: Any, **__: Any) -> None:
        if not response.ok and (said := response.headers.get("Retry-After")):
            self.retry_after = _when(said, datetime.now(UTC))


class _Replacing(jose.JSONDeSerializable):
    def __init__(self, order: jose.JSONDeSerializable, replaces: str) -> None:
        self._order = order
        self._replaces = replaces

    def to_partial_json(self) -> Any:
        return {**self._order.to_json(), "replaces": self._replaces}

    @classmethod
    def from_json(cls, jobj: Any) -> _Replacing:
        raise NotImplementedError("it is only sent")


class _Explaining:
    def __init__(self, net: _Network, doing: str) -> None:
        self._net = net
        self._doing = doing

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (messages.Error, errors.Error, requests.RequestException, jose.Error, ValueError)):
            code = str(error.code or "") if isinstance(error, messages.Error) else ""
            message = f"{self._doing}: {_reason(error)}"
            raise IssuanceFailed(message, code=code, retry_after=self._net.retry_after) from None


def _reason(error: BaseException) -> str:
    """One line, without what a CA may have sent beside it."""
    if isinstance(error, messages.Error):
        within = "; ".join(f"{e.identifier.value}: {e.detail}" for e in error.subproblems or () if e.identifier)
        said = f"{error.code or error.typ}: {error.detail or error.title or 'no reason given'}"
        return f"{said} ({within})" if within else said
    if isinstance(error, errors.ValidationError):
        return "; ".join(
            f"{authorization.body.identifier.value}: {_reason(challenge.error)}"
            for authorization in error.failed_authzrs
            for challenge in authorization.body.challenges
            if challenge.error is not None
        )
    if isinstance(error, errors.TimeoutError):
        return "the CA took too long"
    if isinstance(error, errors.ARIError):
        return "the CA did not answer"
    if isinstance(error, requests.RequestException):
        return f"the CA can not be reached ({type(error).__name__})"
    return str(error).partition("\n")[0][:300] or type(error).__name__


def _when(said: str, now: datetime) -> datetime | None:
    """RFC 9110 10.2.3: seconds or a date."""
    if said.strip().isdigit():
        return now + timedelta(seconds=min(int(said), 10**7))
    try:
        return parsedate_to_datetime(said).astimezone(UTC)
    except ValueError:
        return None


def _leaf(chain: str) -> bytes:
    return x509.load_pem_x509_certificates(chain.encode())[0].public_bytes(serialization.Encoding.PEM)


def _renewal_id(chain: str) -> str:
    """RFC 9773 4.1; "": it has no authority key identifier."""
    certificate = x509.load_pem_x509_certificates(chain.encode())[0]
    try:
        identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        identifier = None
    if identifier is None:
        return ""
    serial = certificate.serial_number
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # DER: room for the sign
    return f"{jose.b64encode(identifier).decode()}.{jose.b64encode(number).decode()}"
