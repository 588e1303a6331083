"""The SMTP server in Rust: listeners, TLS, sessions, and batches of complete envelopes.

Only `smtp_proxy.core` imports this module. The border has few verbs and is crossed per batch, never per message;
only plain values cross it. The server's threads never take the GIL, and call Python for nothing: they make a
descriptor readable, and only if somebody asked for it (`Server.arm`).

Sizes are bytes, times are seconds unless a name says otherwise. Ids are UUIDs as 16 bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, final

__all__ = [
    "Batch",
    "CertificateError",
    "ConfigError",
    "LoginBatch",
    "Pieces",
    "Server",
    "ServerConfig",
    "is_mailbox",
    "sender_pattern",
    "transmission",
]

_Dsn: TypeAlias = tuple[int | None, str | None, list[tuple[int | None, str | None]]]

# PEM chain, PEM key; and perhaps OCSP response, name for errors.
_Certificate: TypeAlias = tuple[bytes, bytes] | tuple[bytes, bytes, bytes, str]

class ConfigError(ValueError):
    """A setting is missing or cannot be; the message names it and says what would do."""

class CertificateError(ValueError):
    """A certificate or its key cannot be used; those in place stay."""

@final
class ServerConfig:
    """All that a server is told at its start. Frozen; never shows a key."""

    def __new__(
        cls,
        *,
        hostname: str,
        software: str = "smtp-proxy",
        starttls_address: str | None = None,
        tls_address: str | None = None,
        plaintext_address: str | None = None,
        plaintext_identity: tuple[bytes, bytes, str, Sequence[str]] | tuple[bytes, bytes, str] | None = None,
        certificates: Sequence[_Certificate] = ...,
        limits: dict[str, int] = ...,
        command_timeout_seconds: float = 300.0,
        data_timeout_seconds: float = 180.0,
        handshake_timeout_seconds: float = 30.0,
        session_max_seconds: float = 0.0,
        max_connections: int = 20_000,
        max_in_flight_bytes: int = ...,
        max_waiting_messages: int = 10_000,
        threads: int = 0,
        add_missing_headers: bool = True,
        strip_bcc: bool = True,
        tls13_only: bool = False,
        ticket_seconds: int = 43_200,
        client_auth: str = "none",
        client_ca: bytes = ...,
        client_crl: bytes = ...,
        protection: dict[str, float] = ...,
        proxy_networks: Sequence[str] = ...,
    ) -> ServerConfig:
        """Check what can be checked without opening anything.

        Args:
            hostname: our name in the greeting, EHLO and 421.
            software: the greeting's text after the name.
            starttls_address: `host:port` where plaintext comes first and STARTTLS is offered (RFC 6409, RFC 3207);
                port 0: any free one. A name is resolved now.
            tls_address: `host:port` where TLS comes first (RFC 8314 3.3).
            plaintext_address: loopback only; neither TLS nor AUTH is spoken there. For benchmarks.
            plaintext_identity: tenant id, credential id, username that the plaintext listener submits as, and
                the sender patterns that bind it; without them, or with none, any reverse-path is taken.
            certificates: PEM chain and unencrypted PEM key of each, and perhaps an OCSP response (DER; empty: none) to
                be stapled and what errors shall call it. Chosen by SNI: exact name, else wildcard, else the first one.
            limits: of a session, by the names of the proto crate's `Limits`; the rest keeps its defaults.
            command_timeout_seconds: from our reply to the client's next whole command (RFC 5321 4.5.3.2.7).
            data_timeout_seconds: between two pieces of a message (RFC 5321 4.5.3.2.5), and for taking our replies.
            handshake_timeout_seconds: for one TLS handshake.
            session_max_seconds: age at which a session gets 421 after its current message; 0: any age.
            max_connections: over all listeners; more get 421 4.3.2.
            max_in_flight_bytes: of messages received or being received, with their recipients; beyond, sockets are not
                read.
            max_waiting_messages: that await their commit; beyond, sockets are not read.
            threads: of the server; 0: one less than there are cores, at least one.
            add_missing_headers: Date and Message-ID where they are missing, an empty line where text has no header
                (RFC 6409 8).
            strip_bcc: take Bcc and Resent-Bcc out (RFC 5322 3.6.3, 3.6.6).
            tls13_only: TLS 1.2 is refused.
            ticket_seconds: so long at most a session ticket is good; 0: none are given. At most 43,200.
            client_auth: "none"; "optional": clients are asked for a certificate; "required": none is served without.
            client_ca: PEM certificates of the CAs that issue those.
            client_crl: PEM revocation lists, one of each CA; empty: nobody is revoked.
            protection: limits per address and on slowness, by the names of the settings without `smtp_`; 0 and what is
                not given: off.
            proxy_networks: connections from there begin with a PROXY header (v1 or v2), but on the plaintext listener.

        Raises:
            ConfigError: names the setting and what would do.
        """

@final
class Server:
    """Listeners, sessions and the queue of complete envelopes. Made stopped; starts once."""

    def __new__(cls, config: ServerConfig) -> Server:
        """Read the certificates.

        Raises:
            CertificateError: one of them cannot be used.
            OSError: no descriptor for the wake-up.
        """

    def start(self) -> dict[str, tuple[str, int]]:
        """Open the listeners and start the threads; without the GIL.

        Returns:
            Address and port of each listener: `{"starttls": ("127.0.0.1", 2587), ...}`; also "tls", "plaintext".

        Raises:
            ConfigError: an address cannot be listened on; then none is.
            RuntimeError: it was started before.
        """

    def fileno(self) -> int:
        """Return the wake-up: readable when something that was armed for may have come, or the drain has ended.

        Level-triggered, and cleared by `arm` only.
        """

    def arm(self, batches: bool = True, logins: bool = True, newcomers: bool = False) -> bool:
        """Clear the wake-up, and let envelopes or logins that come from now on set it, once.

        `newcomers`: envelopes of tenants that have none in a batch under way. With none of the three it is only
        cleared. Afterwards look at `is_drained`, whose signal may have been cleared too.

        Returns:
            True: something of that kind waits already, so do not sleep.
        """

    def next_batch(self, max_messages: int, max_bytes: int, newcomers: bool = False) -> Batch | None:
        """Take the envelopes that wait, up to both bounds but at least one; None: there is none.

        Of one tenant alone all are taken, oldest first. Of several they are taken in turns, and no more of each than a
        share, so that nobody waits behind a flood (core_rs/server/src/fairness.rs).

        Args:
            max_messages: most envelopes.
            max_bytes: most bytes of bodies, if there is more than one.
            newcomers: only of tenants that have nothing in a batch taken and not answered.
        """

    def next_logins(self, max_logins: int) -> LoginBatch | None:
        """Take the logins that wait, oldest first; None: there is none."""

    def forget_logins(self) -> None:
        """Credentials may have changed: answer no login any more that was to be kept (`LoginBatch.answer`)."""

    def set_gate(self, gate: str) -> None:
        """Say whether mail may come in, from the next greeting and the next MAIL on.

        Args:
            gate: "open"; "busy": 421 4.3.2; "store_down": 421 4.3.0 at connect, 451 4.3.0 at MAIL; "draining": as
                busy, and for good.

        Raises:
            ConfigError: it is none of these.
        """

    def shut_tenant(self, tenant_id: bytes, seconds: float) -> None:
        """Answer 450 4.7.1 to MAIL in this tenant's sessions for so long; 0: no longer. Others are not touched.

        Meanwhile its sessions are answered half a second late, so that hammering on costs the others nothing.

        Raises:
            ValueError: the id has not 16 bytes.
            ConfigError: that is no time.
        """

    def limit_sessions(self, limits: Sequence[tuple[bytes, int]]) -> None:
        """Let these tenants have so many sessions here, and all others any number.

        A login beyond that is answered 421 4.7.0, and the session is closed. Nobody who is in is sent away.

        Raises:
            ValueError: an id has not 16 bytes; nothing is changed.
        """

    def set_lanes(self, lanes: Sequence[tuple[bytes, int]]) -> None:
        """Say which lane (0: transactional, 1: bulk) mail of these tenants and credentials goes in, by their ids.

        A message whose header asks for a lane goes in that one (core_rs/proto/src/lane.rs); else a credential's counts,
        then its tenant's, and all other mail is transactional. From the next batch on; replaces what was said before.

        Raises:
            ValueError: an id has not 16 bytes, or another number; nothing is changed.
        """

    def tenant_sessions(self) -> list[tuple[bytes, int]]:
        """Return how many sessions each tenant has here that has any."""

    def reload_tls(self, certificates: Sequence[_Certificate], client_ca: bytes = ..., client_crl: bytes = ...) -> None:
        """Use these certificates for new handshakes; connections that stand are not touched. Without the GIL.

        Session tickets stay good, unless `client_ca` or `client_crl` differ from before.

        Raises:
            CertificateError: one of them cannot be used; those in place stay.
            ConfigError: the server was made without certificates, or client_ca or client_crl cannot be used; what is
                in place stays.
        """

    def ban(self, address: str, seconds: float) -> bool:
        """Turn this client away from now on for so long, as if it had failed to log in too often: 421 at connect.

        The hook for bans that a fleet shares: each process knows only what it saw itself or was told here. Of an IPv6
        address its whole network (`ipv6_prefix_bits`) is meant. Of sessions that stand, only logins are refused. The
        last word counts, and it may be shorter than what was there.

        Returns:
            False: the table is full of others that must stay; nothing is remembered.

        Raises:
            ValueError: it is no IP address.
            ConfigError: that is no time.
        """

    def bans(self) -> list[tuple[str, float]]:
        """Return who is banned, by `ban` or by failures, and for how many seconds still.

        Of an IPv6 network it is the first address.
        """

    def lift_ban(self, address: str) -> bool:
        """End a ban, and forget the failed logins that led to it; False: there was none.

        Raises:
            ValueError: it is no IP address.
        """

    def drain(self) -> None:
        """Close the listeners, answer idle sessions 421, and let the others finish their message.

        Returns at once. Batches and logins must still be taken and answered; `is_drained` says when nobody is left.
        """

    def is_drained(self) -> bool:
        """Return True once `drain` was called and nobody is connected. The wake-up is set when that happens."""

    def stop(self) -> None:
        """End at once, whoever is connected; waits for the threads, without the GIL. Again: nothing.

        What was not answered gets no answer, and a batch that is committed afterwards has nobody to tell.
        """

    def stats(self) -> dict[str, int]:
        """Return counters and what is now.

        `…_total` only grow: connections, refused_connections (max_connections), refused_busy (gate), accept_errors,
        accepted, accepted_bytes, deferred, vanished (gone before the final dot), timeouts, budget_waits,
        tls_handshakes, tls_resumptions (among them), tls_failures, tls_reloads, logins, auth_failures,
        auth_unavailable, over_rate (450 at the final dot), refused_sessions (a tenant's or a credential's limit),
        wakeups; turned away per address: refused_per_address (at once), refused_per_minute (new ones), refused_banned;
        login_bans, login_delays, login_timeouts, slow_data; proxy_headers, proxy_local (health checks), proxy_errors.
        Now: connections_active, addresses_known, envelopes_waiting (for their verdict), envelopes_queued (not taken
        yet), logins_queued, bytes_in_flight.
        """

@final
class Pieces:
    """A batch in Postgres's encoding, some 256 KiB at a time; each piece is a number of whole messages.

    A piece is made when it is asked for, without the GIL, so much mail is not held twice. It ends early once the batch
    is answered.
    """

    @property
    def has_parts(self) -> bool:
        """Whether there is a third table: some message is long, and its content is in parts."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...

@final
class Batch:
    """Envelopes to be stored in one transaction. One that is dropped unanswered answers 451 to all."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all bodies together that were not split off."""

    @property
    def beside_quiet(self) -> bool:
        """A tenant with much mail is in it, and one with little is about, or was within the last second."""

    def __len__(self) -> int:
        """Return how many are not answered yet."""

    def envelopes(
        self,
    ) -> list[tuple[bytes, bytes, bytes, str, list[str], bytes, int, bool, str, str, int, int, _Dsn | None, int]]:
        """Return the envelopes, of each tenant the oldest first; the same list each time.

        Each: id (UUIDv7), tenant id, credential id, reverse-path ("" is null), recipients, body (CRLF lines, dots
        unstuffed, mended), body type (0: 7bit, 1: 8bitmime), SMTPUTF8, name given in EHLO, client's IP address, TLS
        (0: none; else the number of its cipher suite in IANA's registry), time of the final dot in microseconds since
        1970, DSN (RFC 3461): None as a rule; else RET (1: FULL, 2: HDRS), ENVID as it was written, and for each
        recipient NOTIFY (bits: 1 success, 2 failure, 4 delay; 0: NEVER) and ORCPT as it was written, where None is
        what was not given; lane (0: transactional, 1: bulk).
        """

    def encode(self, sweep_at_us: int) -> Pieces:
        """Return all of it as Postgres takes it fastest, piece by piece.

        These are the messages that follow one query of two `COPY … FROM STDIN (FORMAT binary)`: the rows of
        `envelopes` and `deliveries` in this order, with the columns of `copy_accepted` in the store's
        queries, each as CopyData messages and a CopyDone; if `Pieces.has_parts`, behind them those of `copy_parts`. The
        envelopes stay, so it may be had again, and `envelopes` after it, until they are answered.

        Args:
            sweep_at_us: deliveries.sweep_at, microseconds since 1970.

        Raises:
            ValueError: the envelopes have left, by `envelopes` or with the answer.
        """

    def bulk_ids(self) -> list[bytes]:
        """Return the ids of those that are bulk mail, as encoded; nothing after `envelopes`, nor after the answer."""

    def tenants(self) -> list[bytes]:
        """Return whose the envelopes are, each tenant once; nothing after `envelopes`."""

    def outlines(self) -> list[tuple[bytes, bytes, int, int]]:
        """Return id, tenant id, number of recipients and bytes of the body of each, in the order of `ids`.

        Nothing leaves the batch by it, and no text crosses the border. Nothing is there after `envelopes`.
        """

    def split(self, ids: Sequence[bytes]) -> Batch:
        """Return these as a batch of their own, with their unanswered clients; the others stay here as they are.

        Ids that are not in it are passed over. Before `envelopes` and `encode`. Without the GIL.

        Raises:
            ValueError: the envelopes have left, or an id has not 16 bytes.
        """

    def ids(self) -> list[bytes]:
        """Return the ids of those that are not answered yet, oldest first."""

    def commit(self) -> None:
        """Answer `250 2.0.0 queued as <id>` to all: they are stored, durably. A second answer is none."""

    def defer(self) -> None:
        """Answer 451 4.3.0 to all: they are not stored, the clients shall try again. A second answer is none."""

    def rename(self, ids: Sequence[bytes]) -> None:
        """Say as what each is queued when it is answered 250, in the order of `ids`; before the answer.

        Raises:
            ValueError: not as many as there are envelopes unanswered, or an id has not 16 bytes; nothing is changed.
        """

    def answer(self, answers: Sequence[int]) -> None:
        """Answer each by itself, in the order of `envelopes`.

        Args:
            answers: of each, 0 or False: 451 4.3.0, not stored; 1 or True: 250, it is stored; 2: 450 4.7.1, not stored
                since its tenant is over its rate.

        Raises:
            ValueError: not as many as there are envelopes, or another number; nobody is answered.
            OverflowError: a number below 0 or above 255; nobody is answered.
        """

@final
class LoginBatch:
    """Logins to be verified. One that is dropped unanswered answers 454 to all."""

    def __len__(self) -> int:
        """Return how many are not answered yet."""

    def requests(self) -> list[tuple[str, str, str] | tuple[str, str, list[str], str]]:
        """Return what each claims; nothing after the answer.

        By password: username, password, client's IP address. By the certificate of the handshake (AUTH EXTERNAL):
        username asked for or "", its SHA-256 fingerprint (64 lower-case hexadecimal digits), whom it names (`dns:`,
        `email:`, `uri:`, `ip:`, else `cn:`), client's IP address.
        """

    def answer(self, verdicts: Sequence[Any], keep: Sequence[tuple[float, Sequence[str]] | None] = ...) -> None:
        """Answer all, in the order of `requests`; a second answer is none.

        Args:
            verdicts: of each, (tenant id, credential id, username, sender patterns): 235, logged in, and MAIL from
                anybody else is 550 5.7.1 until the session ends; without patterns, or with none, it may be from
                anybody. False: 535 5.7.8; None: 454 4.7.0, cannot be checked now.
            keep: of each that is accepted, how many seconds the core may answer the same username and password by
                itself, and from which networks (none: from everywhere); None, or nothing: not at all. Forgotten
                earlier by `Server.forget_logins`, and not kept if that came after the batch was taken.

        Raises:
            ValueError: not as many as there are logins; nobody is answered.
            TypeError: something else among them, or a pattern that is none; nobody is answered.
            ConfigError: no network, or no time; nobody is answered.
        """

def is_mailbox(text: str) -> bool:
    """Whether RCPT takes it between its brackets: RFC 5321 4.1.2, 4.1.3 and RFC 6531 3.3, in 254 octets.

    Raises UnicodeEncodeError: a lone surrogate, which no UTF-8 has.
    """

def sender_pattern(pattern: str) -> str:
    """Return the one spelling in which a sender pattern is kept: lower case, quoted only where it must be.

    A mailbox, a domain (`example.com`, `@example.com`), all domains below one (`*.example.com`), or `<>`.

    Raises:
        ValueError: it is none; the message names it and says what would do.
    """

def transmission(trace: bytes, body: bytes) -> tuple[bytes, bool]:
    """Return what is sent after DATA, and whether the body is ASCII.

    `trace` (whole header fields), the body with its leading dots doubled and its last line ended, and the final dot
    (RFC 5321 4.5.2).

    Raises:
        ValueError: the body holds NUL or a bare CR or LF, which the message says.
    """
