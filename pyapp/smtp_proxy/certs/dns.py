"""TXT records for DNS-01 (RFC 8555 8.4): in Route 53, or by dynamic update (RFC 2136). Both block: use a thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.tsigkeyring
import dns.update

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, IssuanceFailed

_TTL_SECONDS: Final = 60
_UPDATE_SECONDS: Final = 10.0
_CHANGE_POLL_SECONDS: Final = 2.0

Records = Mapping[str, Sequence[str]]  # texts by name, `_acme-challenge.…`


class DnsProvider(Protocol):
    """Where records are put. Both raise IssuanceFailed."""

    def put(self, records: Records) -> None:
        """On return they are there, as far as the provider says."""

    def remove(self, records: Records) -> None:
        """What is not there is no error."""


def provider_of(settings: Settings) -> DnsProvider | None:
    """None: ACME_DNS=none. Raises ConfigurationError: says which setting is missing."""
    if settings.acme_dns == "route53":
        return Route53(settings.acme_route53_zone_id, settings.acme_patience_seconds)
    if settings.acme_dns == "rfc2136":
        return DynamicUpdate(settings)
    return None


class Route53:
    """A hosted zone of Amazon Route 53; needs ChangeResourceRecordSets, GetChange, maybe ListHostedZones."""

    def __init__(self, zone_id: str, patience_seconds: float, client: Any = None) -> None:
        self._zone_id = zone_id
        self._patience_seconds = patience_seconds
        self._client = client

    def put(self, records: Records) -> None:
        changes = [(self._change("UPSERT", name, texts), name) for name, texts in records.items()]
        for zone, group in self._by_zone(changes).items():
            self._wait(self._submit(zone, group))

    def remove(self, records: Records) -> None:
        changes = [(self._change("DELETE", name, texts), name) for name, texts in records.items()]
        for zone, group in self._by_zone(changes).items():
            self._submit(zone, group)

    # -- below

    def _route53(self) -> Any:
        if self._client is None:
            import boto3  # noqa: PLC0415 - slow to load, and for Route 53 alone

            self._client = boto3.client("route53")
        return self._client

    def _change(self, action: str, name: str, texts: Sequence[str]) -> dict[str, Any]:
        values = [{"Value": f'"{text}"'} for text in texts]
        record = {"Name": f"{name}.", "Type": "TXT", "TTL": _TTL_SECONDS, "ResourceRecords": values}
        return {"Action": action, "ResourceRecordSet": record}

    def _by_zone(self, changes: Sequence[tuple[dict[str, Any], str]]) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for change, name in changes:
            found.setdefault(self._zone_id or self._zone_of(name), []).append(change)
        return found

    def _zone_of(self, name: str) -> str:
        zones: dict[str, str] = {}
        with _told("listing the hosted zones"):
            for page in self._route53().get_paginator("list_hosted_zones").paginate():
                public = (z for z in page["HostedZones"] if not z["Config"].get("PrivateZone"))
                zones |= {z["Name"].rstrip("."): z["Id"] for z in public}
        fitting = [zone for zone in zones if name == zone or name.endswith(f".{zone}")]
        if not fitting:
            raise IssuanceFailed(
                f"Route 53 has no public hosted zone for {name}: set ACME_ROUTE53_ZONE_ID, or make one"
            )
        return zones[max(fitting, key=len)]

    def _submit(self, zone: str, changes: list[dict[str, Any]]) -> str:
        with _told("changing a hosted zone"):
            answer = self._route53().change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})
        return str(answer["ChangeInfo"]["Id"])

    def _wait(self, change: str) -> None:
        until = time.monotonic() + self._patience_seconds
        while time.monotonic() < until:
            with _told("asking for a change"):
                if self._route53().get_change(Id=change)["ChangeInfo"]["Status"] == "INSYNC":
                    return
            time.sleep(_CHANGE_POLL_SECONDS)
        raise IssuanceFailed("Route 53 took longer than ACME_PATIENCE_SECONDS to publish a record")


class DynamicUpdate:
    """A name server that takes updates (BIND, Knot, PowerDNS), over TCP, signed by TSIG where there is a key."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError."""
        if not settings.acme_rfc2136_server or not settings.acme_rfc2136_zone:
            raise ConfigurationError("ACME_DNS=rfc2136 needs ACME_RFC2136_SERVER and ACME_RFC2136_ZONE")
        host, colon, port = settings.acme_rfc2136_server.rpartition(":")
        alone = not colon or "]" in port or (":" in host and not host.startswith("["))
        self._host = (settings.acme_rfc2136_server if alone else host).strip("[]")
        if not alone and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigurationError(f"ACME_RFC2136_SERVER: {port!r} is no port; write HOST or HOST:PORT")
        self._port = 53 if alone else int(port)
        self._zone = dns.name.from_text(settings.acme_rfc2136_zone)
        self._key = None if settings.acme_rfc2136_key_file is None else _tsig(settings)

    def put(self, records: Records) -> None:
        update = self._update()
        for name, texts in records.items():
            update.replace(dns.name.from_text(name), _TTL_SECONDS, "TXT", *texts)
        self._send(update)

    def remove(self, records: Records) -> None:
        update = self._update()
        for name in records:
            update.delete(dns.name.from_text(name), "TXT")
        self._send(update)

    # -- below

    def _update(self) -> dns.update.UpdateMessage:
        return dns.update.UpdateMessage(self._zone, keyring=self._key)

    def _send(self, update: dns.update.UpdateMessage) -> None:
        where = f"updating {self._zone} at {self._host}:{self._port}"
        try:
            answer = dns.query.tcp(update, self._host, _UPDATE_SECONDS, self._port)
        except (OSError, dns.exception.DNSException) as error:
            raise IssuanceFailed(f"{where}: {str(error) or type(error).__name__}") from None
        if answer.rcode() != dns.rcode.NOERROR:
            raise IssuanceFailed(f"{where}: {dns.rcode.to_text(answer.rcode())}: may this key update the zone?")


def _tsig(settings: Settings) -> dns.tsig.Key:
    file = settings.acme_rfc2136_key_file
    try:
        name, algorithm, secret = (file.read_text(encoding="ascii") if file else "").split()
        return dns.tsig.Key(name, secret, algorithm)
    except OSError as error:
        raise ConfigurationError(f"ACME_RFC2136_KEY_FILE: can not read {file}: {error.strerror}") from None
    except (ValueError, dns.exception.DNSException):
        raise ConfigurationError(f"ACME_RFC2136_KEY_FILE: {file}: write NAME ALGORITHM BASE64 in one line") from None


class _told:  # noqa: N801 - reads as a verb
    """Turn what AWS refuses into IssuanceFailed, by its code alone."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            response = getattr(error, "response", {})
            code = response.get("Error", {}).get("Code", type(error).__name__)
            raise IssuanceFailed(f"Route 53, {self._doing}: {code}") from None
