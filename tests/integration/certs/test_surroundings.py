"""Route 53, S3 and SNS (moto answers as their API, over HTTP), a name server that takes updates, a webhook."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.tsig
import pytest
from acme_dns import SECRET, NameServer, texts_of_route53
from aiohttp import web
from certificates import Authority

from smtp_proxy.certfiles.check import check
from smtp_proxy.certs.alerts import Alert, Alerter
from smtp_proxy.certs.backup import Backup
from smtp_proxy.certs.dns import DynamicUpdate, Route53, provider_of
from smtp_proxy.certs.issuer import Issuer
from smtp_proxy.certs.service import Keeper
from smtp_proxy.clock import SystemClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, IssuanceFailed
from smtp_proxy.model.certificate import CertificateOrder, StoredCertificate
from smtp_proxy.sealing import SecretKeys
from smtp_proxy.store import Store
from smtp_proxy.store.ids import new_id

pytestmark = pytest.mark.integration
KEYS = SecretKeys({"k1": bytes(range(32))})
NAME = "_acme-challenge.mx.example.com"


@pytest.fixture
def aws(moto: str) -> dict[str, Any]:
    """What a boto3 client needs to reach it."""
    login = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return {"endpoint_url": moto, "region_name": "eu-central-1", **login}


class TestRoute53:
    def test_records_come_and_go_in_the_closest_zone(self, aws: dict[str, Any]) -> None:
        """REQ-INFRA-TLS-004: DNS-01."""
        client = boto3.client("route53", **aws)
        outer, inner = (
            client.create_hosted_zone(Name=zone, CallerReference=zone)["HostedZone"]["Id"]
            for zone in ("example.com.", "mx.example.com.")
        )
        provider = Route53("", 5, client)
        provider.put({NAME: ["one", "two"]})
        assert texts_of_route53(client, inner) == {f"{NAME}.": ['"one"', '"two"']}
        assert texts_of_route53(client, outer) == {}
        provider.remove({NAME: ["one", "two"]})
        assert texts_of_route53(client, inner) == {}
        with pytest.raises(IssuanceFailed, match="has no public hosted zone for"):
            provider.put({"_acme-challenge.other.example": ["x"]})
        with pytest.raises(IssuanceFailed, match="Route 53, changing a hosted zone: NoSuchHostedZone"):
            Route53("Z0", 5, client).put({NAME: ["x"]})


class TestDynamicUpdate:
    @pytest.fixture
    def server(self) -> Iterator[NameServer]:
        server = NameServer(dns.tsig.Key("acme.", SECRET, "hmac-sha256"))
        yield server
        server.close()

    def settings(self, server: NameServer, tmp_path: Path, secret: str = SECRET) -> Settings:
        (tmp_path / "tsig").write_text(f"acme. hmac-sha256 {secret}\n")
        return Settings(
            acme_dns="rfc2136",
            acme_rfc2136_server=f"127.0.0.1:{server.port}",
            acme_rfc2136_zone="example.com",
            acme_rfc2136_key_file=tmp_path / "tsig",
        )

    def test_records_come_and_go(self, server: NameServer, tmp_path: Path) -> None:
        """REQ-INFRA-TLS-004: DNS-01."""
        provider = provider_of(self.settings(server, tmp_path))
        assert isinstance(provider, DynamicUpdate)
        provider.put({NAME: ["one", "two"]})
        assert server.records == {f"{NAME}.": ['"one"', '"two"']}
        provider.remove({NAME: ["one", "two"]})
        assert server.records == {}

    def test_what_is_refused(self, server: NameServer, tmp_path: Path) -> None:
        provider = DynamicUpdate(self.settings(server, tmp_path))
        server.rcode = dns.rcode.REFUSED
        with pytest.raises(IssuanceFailed, match="REFUSED: may this key update the zone"):
            provider.put({NAME: ["x"]})
        server.close()
        unreachable = DynamicUpdate(self.settings(server, tmp_path).model_copy(update={"acme_rfc2136_server": "::1"}))
        assert (unreachable._host, unreachable._port) == ("::1", 53)

    def test_settings_that_are_missing_or_wrong(self, server: NameServer, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="ACME_RFC2136_SERVER and ACME_RFC2136_ZONE"):
            provider_of(Settings(acme_dns="rfc2136"))
        for address in ("127.0.0.1:dns", "127.0.0.1:", "127.0.0.1:65536"):
            wrong = self.settings(server, tmp_path).model_copy(update={"acme_rfc2136_server": address})
            with pytest.raises(ConfigurationError, match=r"ACME_RFC2136_SERVER: .* is no port"):
                DynamicUpdate(wrong)
        with pytest.raises(ConfigurationError, match="write NAME ALGORITHM BASE64") as caught:
            DynamicUpdate(self.settings(server, tmp_path, "not base64!"))
        assert "not base64" not in str(caught.value)
        assert provider_of(Settings()) is None


def alert() -> Alert:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    return Alert("mx", ("mx.example.com",), "the CA is away", 1, now, now + timedelta(days=3))


class TestAlerts:
    async def test_sns_and_webhook(self, aws: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        """REQ-INFRA-TLS-006: administrators are told."""
        sns, sqs = boto3.client("sns", **aws), boto3.client("sqs", **aws)
        topic = sns.create_topic(Name="certificates")["TopicArn"]
        queue = sqs.create_queue(QueueName="told")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        got: list[dict[str, Any]] = []

        async def take(request: web.Request) -> web.Response:
            got.append(await request.json())
            return web.Response()

        application = web.Application()
        application.router.add_post("/alerts", take)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
            settings = Settings(cert_alert_sns_topic=topic, cert_alert_webhook=url)
            with caplog.at_level(logging.ERROR, "smtp_proxy"):
                await Alerter(settings, sns).tell(alert())
        finally:
            await runner.cleanup()
        (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
        text = json.loads(message["Body"])["Message"]
        assert text == next(r.message for r in caplog.records if r.action == "certificate_alert")
        assert "the old one serves until 2026-11-29 12:00Z" in text
        assert got[0]["event"] == "certificate_failed"
        assert (got[0]["certificate"], got[0]["expires_at"]) == ("mx", "2026-11-29T12:00:00+00:00")

    async def test_what_can_not_be_told_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        settings = Settings(cert_alert_webhook="http://127.0.0.1:1/")
        with caplog.at_level(logging.WARNING):
            await Alerter(settings).tell(alert())
        assert [r.action for r in caplog.records] == ["certificate_alert", "alert_failed"]


class TestBackup:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> StoredCertificate:
        both = Authority(tmp_path).issue("mx.example.com").read_bytes()
        at = both.index(b"-----BEGIN PRIVATE KEY")
        now = datetime.now(UTC)
        bare = StoredCertificate(
            new_id(now), "mx", ("mx.example.com",), both[:at].decode(), KEYS.seal(b"", ""), now, now, "https://ca"
        )
        return replace(bare, sealed=KEYS.seal(both[at:], bare.context))

    async def test_saved_and_restored(self, aws: dict[str, Any], certificate: StoredCertificate) -> None:
        """A fresh installation takes it from there; a reader of the bucket has no key (REQ-INFRA-TLS-012)."""
        s3 = boto3.client("s3", **aws)
        s3.create_bucket(Bucket="backup", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        s3.put_bucket_versioning(Bucket="backup", VersioningConfiguration={"Status": "Enabled"})
        by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "ours"}
        rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": by_default}]}
        s3.put_bucket_encryption(Bucket="backup", ServerSideEncryptionConfiguration=rules)
        backup, now = Backup(Settings(cert_backup_bucket="backup"), KEYS, s3), datetime.now(UTC)
        order = CertificateOrder("mx", ("mx.example.com",))
        assert await backup.load(order, now) is None
        assert await backup.save(certificate)
        assert await backup.save(certificate)
        assert await backup.load(order, now) == certificate
        objects = s3.list_object_versions(Bucket="backup")["Versions"]
        assert sorted(o["Key"] for o in objects) == ["mx/certificate.json"] * 2 + ["mx/fullchain.pem"] * 2
        for each in objects:
            body = s3.get_object(Bucket="backup", Key=each["Key"], VersionId=each["VersionId"])
            assert (body["ServerSideEncryption"], body["SSEKMSKeyId"]) == ("aws:kms", "ours"), "as the bucket says"
            assert b"PRIVATE" not in body["Body"].read()
        assert await backup.load(CertificateOrder("mx", ("other.example.com",)), now) is None
        assert await backup.load(order, now + timedelta(days=400)) is None
        stranger = Backup(Settings(cert_backup_bucket="backup"), SecretKeys({"k1": bytes(32)}), s3)
        assert await stranger.load(order, now) is None

    async def test_a_bucket_that_is_missing(
        self, aws: dict[str, Any], certificate: StoredCertificate, caplog: pytest.LogCaptureFixture
    ) -> None:
        backup = Backup(Settings(cert_backup_bucket="none-of-ours"), KEYS, boto3.client("s3", **aws))
        assert not await backup.save(certificate)
        assert "NoSuchBucket" in caplog.text


async def test_a_fresh_database_takes_what_is_in_the_bucket(
    aws: dict[str, Any], db_settings: Settings, store: Store, tmp_path: Path
) -> None:
    """No CA is asked for what is there and good: this one can not be reached at all."""
    authority = Authority(tmp_path)
    both = authority.issue("mx.example.com", days=1).read_bytes()
    at, now = both.index(b"-----BEGIN PRIVATE KEY"), datetime.now(UTC)
    url = "https://127.0.0.1:1/dir"
    good = check(both[:at], both[at:], ["mx.example.com"], now, "mx")
    bare = StoredCertificate(
        new_id(now), "mx", good.names, both[:at].decode(), KEYS.seal(b"", ""), good.not_before, good.not_after, url
    )
    kept = replace(bare, sealed=KEYS.seal(both[at:], bare.context))
    s3 = boto3.client("s3", **aws)
    s3.create_bucket(Bucket="restore", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    settings = db_settings.model_copy(update={"cert_backup_bucket": "restore", "acme_directory": url})
    backup, clock = Backup(settings, KEYS, s3), SystemClock()
    assert await backup.save(kept)
    issuer = Issuer(settings, store, KEYS, None, clock)
    order = CertificateOrder("mx", ("mx.example.com",), declared_by="file")
    keeper = Keeper(settings, store, issuer, Alerter(settings), backup, clock, [order])
    await keeper.declare()
    await keeper.round()
    (found,) = await store.list_fleet_certificates()
    assert (found.id, found.chain) == (kept.id, kept.chain)
    assert KEYS.open(found.sealed, found.context) == both[at:]
