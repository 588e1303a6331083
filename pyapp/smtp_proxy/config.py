"""Every setting of smtp-proxy, read once into one frozen object.

A setting is named by its field. It is taken from, strongest first: `--set KEY=VALUE` on the command line, the
environment variable of the same name in upper case (DB_HOST, SMTP_STARTTLS_PORT, … as in SPEC-INFRA-001), the
TOML file named by SMTP_PROXY_CONFIG, the default below. In TOML a table is a prefix: `[smtp] starttls_port = 587`
is `smtp_starttls_port`.

Not here: what an operator changes while the system runs (tenants, credentials); that lives in the store.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from smtp_proxy import config_checks
from smtp_proxy.config_sources import CONFIG_FILE_VARIABLE, environment_name, explain, gather, toml_value
from smtp_proxy.errors import ConfigurationError

__all__ = ["CONFIG_FILE_VARIABLE", "Settings", "environment_name"]


# Where the store's certificates are put (REQ-INFRA-TLS-012: out of every checkout).
CERTIFICATES = Path("/var/lib/smtp-proxy/certs")


class Settings(BaseModel):
    """All settings; see the module docstring for where they come from. Units are in the names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # -- the installation
    mode: Literal["development", "production"] = "development"
    data_dir: Path = Path(".data")
    hostname: str = "localhost"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    health_host: str = "127.0.0.1"
    health_port: int = Field(default=0, ge=0, le=65535, description="0: no health listener")
    metrics_emf: Literal["auto", "on", "off"] = Field(
        default="auto", description="metrics as log lines for CloudWatch; auto: in a task of ECS that logs JSON"
    )
    metrics_namespace: str = Field(default="SmtpProxy", min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_./#-]+$")
    metrics_service: str = Field(
        default="", max_length=255, description="what CloudWatch calls this service, such as submissions"
    )
    task_protection: Literal["auto", "on", "off"] = Field(
        default="auto", description="have ECS not scale this task in while it has work; auto: where ECS has its agent"
    )
    task_protection_minutes: int = Field(
        default=10, ge=1, le=2880, description="for so long at a time; renewed at half of it"
    )
    task_protection_max_minutes: int = Field(
        default=60, ge=1, description="so long on end at most; then not for 5 minutes, so that ECS has its turn"
    )
    shutdown_timeout_seconds: float = Field(
        default=110.0, gt=0, le=115, description="Fargate kills at 120 s (REQ-INFRA-SCALE-002)"
    )
    shutdown_delay_seconds: float = Field(
        default=0.0, ge=0, description="keep accepting while the load balancer notices"
    )
    start_waits: bool = Field(
        default=False,
        description="wait at the start, instead of ending, for what an operator has yet to do: the schema and the roles"
        " of Postgres, a value of SECRET_KEY_SECRET",
    )
    secret_key_file: Path | None = Field(
        default=None, description="seals secrets in the database; `smtp-proxy secrets new-key FILE` makes it"
    )

    secret_key_secret: str = Field(
        default="", description="secret of AWS (ARN) with what would be in SECRET_KEY_FILE, instead of it"
    )

    # -- Postgres
    db_host: str = "127.0.0.1"
    db_port: int = Field(default=5432, ge=1, le=65535)
    db_name: str = "smtp_proxy"
    db_user: str = "smtp_proxy"
    db_password: SecretStr = SecretStr("")
    db_secret: str = Field(
        default="",
        description="secret of AWS (ARN, or ARN#KEY) with the login of Postgres, instead of DB_PASSWORD; read again"
        " when Postgres refuses it",
    )
    db_iam: bool = Field(
        default=False,
        description="log in to RDS by IAM as DB_USER, with a token for each connection, instead of with a password",
    )
    db_sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    db_ca_file: Path | None = Field(
        default=None,
        description="whom to trust for the certificate of Postgres, PEM; by default ~/.postgresql/root.crt",
    )
    db_pool_size: int = Field(default=8, ge=2, le=100, description="per process (REQ-INFRA-SCALE-003)")
    db_timeout_seconds: float = Field(default=15.0, gt=0)
    db_connect_timeout_seconds: float = Field(default=5.0, gt=0)
    db_pooler: Literal["none", "transaction"] = Field(
        default="none", description="PgBouncer or the like at DB_HOST:DB_PORT, in transaction mode (or session mode)"
    )
    db_direct_host: str = Field(
        default="", description="Postgres itself behind the pooler: for locks, notifications and migrations"
    )
    db_direct_port: int = Field(default=0, ge=0, le=65535, description="0: as DB_PORT")
    db_direct_user: str = Field(
        default="", description="with DB_IAM, who logs in to Postgres itself, where that is not DB_USER"
    )
    migrate_lock_seconds: float = Field(
        default=2.0,
        ge=0.05,
        le=60,
        description="one try for a lock, and so long may others queue behind it; above 1 s "
        "(deadlock_timeout) autovacuum gives way",
    )
    migrate_patience_seconds: float = Field(
        default=300.0, ge=0, description="tries for so long, then the migration fails"
    )
    migrate_owner: str = Field(
        default="",
        description="role that owns the schema: `smtp-proxy migrate`, logged in as who may make roles, makes it and "
        "works as it; empty: DB_USER owns what it makes",
    )
    migrate_login: str = Field(
        default="", description="role that is made beside MIGRATE_OWNER, for services to log in as (DB_IAM)"
    )
    migrate_proxy_login: str = Field(
        default="", description="the same for services that come through RDS Proxy, which logs in with a password"
    )
    migrate_proxy_secret: str = Field(
        default="", description="secret of AWS (ARN) that RDS Proxy reads that password from; empty ones are filled"
    )

    # -- Redis or Valkey
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379")
    redis_secret: str = Field(
        default="", description="secret of AWS (ARN, or ARN#KEY) with the login of Redis, instead of one in REDIS_URL"
    )
    redis_iam: str = Field(
        default="",
        description="USER@CACHE: log in to ElastiCache by IAM, as this user of this replication group, instead of with "
        "a login in REDIS_URL",
    )
    redis_timeout_seconds: float = Field(default=2.0, gt=0)
    redis_cluster: bool = Field(
        default=False, description="REDIS_URL names a node of a Redis Cluster (or its configuration endpoint)"
    )
    stream_name: str = "email-processing"
    stream_shards: int = Field(default=1, ge=1, le=64)

    # -- SMTP listeners (unprivileged ports behind 587 and 465)
    smtp_host: str = "127.0.0.1"
    smtp_starttls_port: int = Field(default=2587, ge=0, le=65535)
    smtp_tls_port: int = Field(default=2465, ge=0, le=65535)
    smtp_plaintext_port: int | None = Field(
        default=None, ge=0, le=65535, description="loopback only, no TLS, no AUTH: benchmarks"
    )
    smtp_plaintext_username: str = Field(default="", description="credential that the plaintext listener submits as")
    smtp_accept_only: bool = Field(default=False, description="benchmark: accepted mail is discarded before storage")
    smtp_threads: int = Field(default=0, ge=0, le=64, description="0: one less than the cores, at least one")
    smtp_max_connections: int = Field(default=20_000, ge=1)
    smtp_max_in_flight_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    smtp_max_message_bytes: int = Field(default=26_214_400, ge=65_536, description="RFC 5321 4.5.3.1.7, RFC 1870")
    smtp_max_recipients: int = Field(
        default=1000, ge=1, le=32_000, description="RFC 5321 4.5.3.1.8 asks for at least 100"
    )
    smtp_max_command_line_bytes: int = Field(default=2048, ge=512, description="RFC 5321 4.5.3.1.4 and its extensions")
    smtp_max_auth_line_bytes: int = Field(default=12_288, ge=512, description="RFC 4954 4")
    smtp_max_text_line_bytes: int = Field(default=1000, ge=1000, description="RFC 5321 4.5.3.1.6, with CRLF")
    smtp_max_errors_per_session: int = Field(default=10, ge=1)
    smtp_max_auth_failures_per_session: int = Field(default=3, ge=1)
    smtp_max_messages_per_session: int = Field(default=0, ge=0, description="0: no limit")
    smtp_command_timeout_seconds: float = Field(default=300.0, gt=0, description="RFC 5321 4.5.3.2.7")
    smtp_data_timeout_seconds: float = Field(default=180.0, gt=0, description="RFC 5321 4.5.3.2.5")
    smtp_handshake_timeout_seconds: float = Field(default=30.0, gt=0)
    smtp_session_max_seconds: float = Field(default=0.0, ge=0, description="0: no limit")
    smtp_max_hops: int = Field(default=100, ge=1, description="Received fields; RFC 5321 6.3: normally at least 100")
    smtp_add_missing_headers: bool = Field(default=True, description="Date, Message-ID (RFC 6409 8)")
    smtp_strip_bcc: bool = Field(default=True, description="take Bcc and Resent-Bcc out (RFC 5322 3.6.3)")
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_cert_dir: Path | None = Field(
        default=None,
        description="NAME/fullchain.pem (or cert.pem) with NAME/privkey.pem (or key.pem), of every NAME; with "
        f"TLS_CERT_SOURCE=store {CERTIFICATES}, if it is not set",
    )
    tls_cert_source: Literal["files", "store"] = Field(
        default="files",
        description="store: the certificates in the database, written to TLS_CERT_DIR, which then is the service's own",
    )
    tls_default_name: str = Field(
        default="", description="shown to who names no server; else TLS_CERT_FILE, else the first of TLS_CERT_DIR"
    )
    tls_ocsp_file: Path | None = Field(
        default=None, description="OCSP response (DER) to staple to TLS_CERT_FILE; in TLS_CERT_DIR it is NAME/ocsp.der"
    )
    tls_min_version: Literal["1.2", "1.3"] = "1.2"
    tls_ticket_seconds: int = Field(
        default=43_200, ge=0, le=43_200, description="session tickets are good so long at most; 0: there are none"
    )
    tls_client_auth: Literal["none", "optional", "required"] = Field(
        default="none", description="are clients asked for a certificate"
    )
    tls_client_ca_file: Path | None = Field(default=None, description="the CAs of client certificates, PEM")
    tls_client_crl_file: Path | None = Field(
        default=None, description="revocation lists of client certificates, PEM, one of each CA"
    )
    tls_ocsp_fetch: bool = Field(
        default=True, description="fetch OCSP responses where a certificate names a responder, and staple them"
    )
    tls_watch_seconds: float = Field(
        default=0.5, ge=0, le=3600, description="look so often whether certificate files changed; 0: never"
    )
    # -- the HTTP API (`smtp-proxy serve api`)
    api_host: str = Field(default="127.0.0.1", description="plain HTTP: a load balancer in front of it speaks TLS")
    api_port: int = Field(default=8080, ge=0, le=65535, description="0: a free one")
    # -- certificates by ACME (`smtp-proxy serve certs`, docs/CERTIFICATES.md)
    acme_certificates: str = Field(
        default="",
        description="wanted, separated by blanks: [NAME=]HOST[,HOST…][@dns-01]; others by `smtp-proxy certs declare`",
    )
    acme_directory: str = Field(
        default="", description="of the CA; by default Let's Encrypt: in production, else its staging directory"
    )
    acme_ca_file: Path | None = Field(default=None, description="whom to trust for the directory's own TLS, PEM")
    acme_contact: str = Field(default="", description="e-mail address for the account at the CA")
    acme_eab_kid: str = Field(default="", description="external account binding (RFC 8555 7.3.4)")
    acme_eab_hmac_file: Path | None = Field(default=None, description="its key, base64url")
    acme_profile: str = Field(default="", description="name of a certificate profile of the CA")
    acme_http_host: str = "127.0.0.1"
    acme_http_port: int = Field(default=8089, ge=0, le=65535, description="answers HTTP-01, behind port 80")
    acme_dns: Literal["none", "route53", "rfc2136"] = Field(default="none", description="who takes records for DNS-01")
    acme_dns_wait_seconds: float = Field(
        default=10.0, ge=0, le=3600, description="until all name servers of a zone have a new record"
    )
    acme_route53_zone_id: str = Field(default="", description="empty: the longest zone of the account that fits")
    acme_rfc2136_server: str = Field(default="", description="ADDRESS[:PORT] of the primary name server")
    acme_rfc2136_zone: str = Field(default="", description="the zone that is updated")
    acme_rfc2136_key_file: Path | None = Field(
        default=None, description="TSIG (RFC 8945), one line: NAME ALGORITHM BASE64, such as hmac-sha256"
    )
    acme_retry_seconds: float = Field(default=60.0, gt=0, description="after a failure; doubled each time, up to 6 h")
    acme_patience_seconds: float = Field(
        default=90.0, gt=0, le=100, description="for the CA to issue one certificate; a service that stops waits for it"
    )
    acme_jitter_seconds: float = Field(default=1800.0, ge=0, le=7200, description="around 02:00 UTC, daily")
    cert_alert_sns_topic: str = Field(default="", description="ARN: told when certificates can not be had")
    cert_alert_webhook: str = Field(default="", description="URL: gets the same as JSON, by POST")
    cert_backup_bucket: str = Field(default="", description="S3: NAME/ holds a certificate, its key sealed")
    smtp_control_socket: Path | None = Field(
        default=None, description="`smtp-proxy certs` asks here; by default control/smtp.sock in the data directory"
    )

    # -- ingress
    ingress_batch_messages: int = Field(default=500, ge=1)
    ingress_batch_bytes: int = Field(default=32 * 1024 * 1024, ge=65_536)
    ingress_committers: int = Field(default=2, ge=1, le=16)
    ingress_busy_percent: int = Field(
        default=50,
        ge=1,
        le=100,
        description="of the committing time tenants with much mail have beside those with little",
    )
    ingress_ready_depth_high: int = Field(default=50_000, ge=1, description="421 above (REQ-INFRA-SCALE-007)")
    ingress_ready_depth_low: int = Field(default=40_000, ge=0, description="accept again below")
    tenant_limit_timeout_seconds: float = Field(
        default=0.05, gt=0, le=5, description="mail of a limited tenant waits for Redis no longer; then local limits"
    )
    tenant_delay_max_seconds: float = Field(
        default=3600.0, ge=0, le=86_400, description="at the limit `delay`: put off by more is rejected"
    )
    tenant_held_max_messages: int = Field(
        default=10_000, ge=0, description="at the limit `hold`: more of one tenant is rejected; 0: any number"
    )
    tenant_held_max_bytes: int = Field(
        default=1024 * 1024 * 1024, ge=0, description="of what is held of one tenant; more is rejected; 0: any number"
    )
    login_cache_seconds: float = Field(default=300.0, ge=0)
    login_hash_threads: int = Field(default=2, ge=1, le=64)

    # -- worker, sweeper
    worker_concurrency: int = Field(default=128, ge=1, description="deliveries under way at once")
    worker_batch_messages: int = Field(default=200, ge=1)
    worker_lease_seconds: float = Field(default=30.0, ge=3)
    sweep_interval_seconds: float = Field(default=1.0, gt=0)
    sweep_after_seconds: float = Field(default=15.0, gt=0, description="ready and unclaimed for so long: publish again")
    sweep_batch_messages: int = Field(default=1000, ge=1)
    partition_days_ahead: int = Field(default=7, ge=1)
    retry_initial_seconds: float = Field(default=60.0, gt=0)
    retry_factor: float = Field(default=2.0, ge=1)
    retry_max_seconds: float = Field(default=4 * 3600.0, gt=0)
    retry_jitter: float = Field(default=0.1, ge=0, le=1, description="share of the delay")
    retry_give_up_seconds: float = Field(
        default=4 * 86_400.0, gt=0, description="RFC 5321 4.5.4.1: 4-5 days; a tenant may have its own"
    )
    retry_schedules: str = Field(
        default="policy=0.5,1,2,5,10,20,30,60 quota=15,30,60,120,240 block=5,15,30,60,120,240 dns=5,15,30,60,120",
        description="[ROUTE/]KIND=…, delays after each attempt in units of retry_initial_seconds, the last again and"
        " again, instead of retry_factor; KIND * is any",
    )
    report_delay_seconds: float = Field(
        default=4 * 3600.0, ge=0, description="senders are told when mail waits for so long; 0: never"
    )
    report_full_max_bytes: int = Field(
        default=1024 * 1024, ge=0, description="a larger message does not come back whole with a report (RET=FULL)"
    )

    # -- signing (DKIM)
    dkim_publish_seconds: float = Field(
        default=86_400.0, ge=0, description="a new key signs so long after its DNS record is printed"
    )
    dkim_retire_seconds: float = Field(
        default=7 * 86_400.0,
        ge=0,
        description="the record of a key that no longer signs stays so long, for late mail",
    )

    # -- retention
    retention_days: int = Field(
        default=30, ge=0, description="mail is kept so long, or as its tenant says; 0: for ever"
    )
    retention_interval_seconds: float = Field(default=3600.0, gt=0, description="old mail is let go of so often")

    # -- webhooks
    webhook_interval_seconds: float = Field(default=1.0, gt=0, description="look so often for events that are due")
    webhook_timeout_seconds: float = Field(
        default=10.0, gt=0, le=60, description="for one event, from connect to answer"
    )
    webhook_give_up_seconds: float = Field(default=4 * 86_400.0, gt=0, description="an event is tried for so long")
    webhook_disable_seconds: float = Field(
        default=5 * 86_400.0, gt=0, description="an endpoint that takes nothing for so long is switched off"
    )
    webhook_https_only: bool = Field(default=True, description="no webhook in the clear")
    webhook_allowed_networks: str = Field(
        default="", description="CIDR with commas: addresses that are not public and may have endpoints all the same"
    )
    webhook_ca_file: Path | None = Field(default=None, description="CAs of endpoints beside the system's, PEM")

    # -- clients that are hostile, broken or too many (docs/RUNBOOK.md, "Under attack")
    smtp_proxy_protocol_networks: str = Field(
        default="",
        description="load balancers, CIDR separated by commas: their connections begin with a PROXY v1 or v2 header",
    )
    smtp_proxy_protocol_timeout_seconds: float = Field(default=5.0, gt=0, le=60, description="for the whole header")
    smtp_max_connections_per_address: int = Field(
        default=1000, ge=0, description="at once; 0: no limit. Generous: a whole network may come by one NAT address"
    )
    smtp_max_new_connections_per_address_per_minute: int = Field(
        default=6000, ge=0, description="0: no limit. 100 a second: one core does some 6,000 handshakes a second"
    )
    smtp_ipv6_prefix_bits: int = Field(
        default=64, ge=32, le=128, description="an IPv6 network of this size counts as one address (RFC 6177)"
    )
    smtp_login_timeout_seconds: float = Field(
        default=120.0, ge=0, description="from the connection to the login; 0: no limit. NOOP does not prolong it"
    )
    smtp_login_delay_seconds: float = Field(
        default=1.0, ge=0, description="of the first 535; each further one waits twice as long as the last; 0: none"
    )
    smtp_login_delay_max_seconds: float = Field(
        default=10.0, ge=0, le=60, description="short of the minute that clients wait for a reply"
    )
    smtp_login_failures_before_ban: int = Field(
        default=100, ge=0, description="0: no ban. One device with an old password reaches 60 in 10 minutes"
    )
    smtp_login_failures_window_seconds: float = Field(
        default=600.0, ge=1, description="in so much time that many failures are forgiven"
    )
    smtp_login_ban_seconds: float = Field(default=600.0, ge=1, description="421 at connect for so long")
    smtp_min_data_bytes_per_second: int = Field(
        default=500, ge=0, description="in DATA; 0: no limit. As Postfix has it in smtpd_min_data_rate"
    )
    smtp_min_data_grace_seconds: float = Field(default=60.0, gt=0, description="before the rate counts")
    smtp_max_sessions_per_credential: int = Field(
        default=1000, ge=0, description="at once, in this process; 0: no limit. So one login does not fill the service"
    )
    smtp_max_idle_commands_per_session: int = Field(
        default=1000, ge=0, description="commands in a row without a message; 0: no limit. A NOOP every 30 s: 8 hours"
    )
    login_queue_max: int = Field(
        default=500,
        ge=1,
        description="logins that wait for argon2, of which a thread does some 40 a second",
    )
    login_queue_max_per_address: int = Field(
        default=100, ge=0, description="of these from one address, so that none fills the queue; 0: no limit"
    )

    # -- the next hop
    smarthost_host: str = "127.0.0.1"
    smarthost_port: int = Field(default=2525, ge=1, le=65535)
    smarthost_tls: Literal["none", "starttls", "implicit"] = "starttls"
    smarthost_ca_file: Path | None = None
    smarthost_tls_pins: str = Field(
        default="",
        description="sha256/BASE64 of the smarthost's public key (RFC 7469 2.4), several with commas: one must match",
    )
    smarthost_dkim: Literal["auto", "all", "one", "none"] = Field(
        default="auto", description="DKIM signatures of ours that it is given; auto: all, and none if it is SES"
    )
    smarthost_username: str = ""
    smarthost_password: SecretStr = SecretStr("")
    smarthost_secret: str = Field(
        default="", description="secret of AWS (ARN, or ARN#KEY) with SMARTHOST_PASSWORD, and SMARTHOST_USERNAME"
    )
    smarthost_connections: int = Field(default=48, ge=1)
    smarthost_messages_per_connection: int = Field(default=1000, ge=1)
    smarthost_connection_max_seconds: float = Field(
        default=600.0, gt=0, description="an older connection takes no further message"
    )
    smarthost_idle_seconds: float = Field(default=20.0, gt=0)
    smarthost_connect_timeout_seconds: float = Field(default=30.0, gt=0)
    smarthost_command_timeout_seconds: float = Field(default=300.0, gt=0, description="RFC 5321 4.5.3.2")
    smarthost_data_timeout_seconds: float = Field(default=600.0, gt=0, description="RFC 5321 4.5.3.2.6")

    routes_file: Path | None = Field(
        default=None, description="which way mail goes, by tenant and domain (docs/ROUTES.md); none: the smarthost"
    )
    dns_servers: str = Field(
        default="", description="for delivery by MX: ADDRESS[:PORT], several with commas; empty: /etc/resolv.conf"
    )
    dns_timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    dns_trust_ad: Literal["loopback", "always", "never"] = Field(
        default="loopback",
        description="believe the resolver that it validated (DNSSEC), which DANE needs; always: the way to it is safe",
    )
    received_client_address: Literal["show", "hide"] = Field(
        default="show", description="name and address of the submitting client in Received (RFC 5321 4.4)"
    )

    # -- the local sink of `smtp-proxy dev`
    sink_host: str = "127.0.0.1"
    sink_port: int = Field(default=2525, ge=0, le=65535)
    sink_http_port: int = Field(default=2580, ge=0, le=65535)
    sink_keep_messages: int = Field(default=20_000, ge=1)

    @field_validator("smtp_host", "health_host", "sink_host", "db_host", "smarthost_host", "hostname")
    @classmethod
    def _host_is_one_word(cls, value: str) -> str:
        return config_checks.one_word(value)

    @field_validator("hostname")
    @classmethod
    def _hostname_goes_over_the_wire(cls, value: str) -> str:
        return config_checks.hostname(value)

    @field_validator("smarthost_tls_pins")
    @classmethod
    def _pins_are_digests(cls, value: str) -> str:
        return config_checks.pins(value)

    @field_validator("smtp_proxy_protocol_networks", "webhook_allowed_networks", mode="before")
    @classmethod
    def _networks_are_networks(cls, value: object) -> str:
        return config_checks.networks(value)

    @field_validator("redis_url")
    @classmethod
    def _redis_url_can_be_used(cls, value: SecretStr) -> SecretStr:
        config_checks.redis_url(value.get_secret_value())
        return value

    @field_validator("db_secret", "redis_secret", "smarthost_secret", "secret_key_secret", "migrate_proxy_secret")
    @classmethod
    def _secrets_are_named(cls, value: str) -> str:
        return config_checks.secret_reference(value)

    @field_validator("redis_iam")
    @classmethod
    def _user_and_cache(cls, value: str) -> str:
        return config_checks.user_of_cache(value)

    @field_validator("migrate_owner", "migrate_login", "migrate_proxy_login")
    @classmethod
    def _roles_are_plain(cls, value: str) -> str:
        return config_checks.role_name(value)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("tls_cert_source") == "store" and given.get("tls_cert_dir") is None:
            return given | {"tls_cert_dir": CERTIFICATES}
        return given

    @model_validator(mode="after")
    def _secrets_are_given_once(self) -> Self:
        for secret, name, given in (
            ("DB_SECRET", "DB_PASSWORD", self.db_secret and self.db_password),
            ("DB_IAM", "DB_SECRET and of DB_PASSWORD", self.db_iam and (self.db_secret or self.db_password)),
            ("SMARTHOST_SECRET", "SMARTHOST_PASSWORD", self.smarthost_secret and self.smarthost_password),
            ("SECRET_KEY_SECRET", "SECRET_KEY_FILE", self.secret_key_secret and self.secret_key_file),
            (
                "REDIS_SECRET",
                "a password in REDIS_URL",
                self.redis_secret and config_checks.redis_login(self.redis_url.get_secret_value()),
            ),
            (
                "REDIS_IAM",
                "REDIS_SECRET, and of a login in REDIS_URL",
                self.redis_iam and (self.redis_secret or config_checks.redis_login(self.redis_url.get_secret_value())),
            ),
        ):
            if given:
                raise ValueError(f"{secret} takes the place of {name}: set one of them")
        return self

    @model_validator(mode="after")
    def _database_agrees(self) -> Self:
        config_checks.database_login(
            iam=self.db_iam, sslmode=self.db_sslmode, ca=self.db_ca_file is not None, direct_user=self.db_direct_user
        )
        config_checks.database_roles(
            self.migrate_owner, self.migrate_login, self.migrate_proxy_login, self.migrate_proxy_secret
        )
        return self

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.redis_iam and not self.redis_url.get_secret_value().startswith("rediss://"):
            raise ValueError("REDIS_IAM needs a REDIS_URL that begins with rediss://: tokens are taken by TLS alone")
        if self.redis_cluster:
            config_checks.redis_cluster_url(self.redis_url.get_secret_value())
        if self.ingress_ready_depth_low > self.ingress_ready_depth_high:
            raise ValueError("INGRESS_READY_DEPTH_LOW must not be above INGRESS_READY_DEPTH_HIGH")
        if self.db_pooler != "none" and not (self.db_direct_host or self.db_direct_port):
            raise ValueError(
                f"DB_POOLER={self.db_pooler} needs DB_DIRECT_HOST or DB_DIRECT_PORT, which is Postgres itself: locks, "
                "notifications and migrations can not go through a pooler"
            )
        if self.tls_cert_source == "store" and self.secret_key_file is None and not self.secret_key_secret:
            raise ValueError("TLS_CERT_SOURCE=store needs SECRET_KEY_FILE or SECRET_KEY_SECRET, which open its keys")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE go together: set both or neither")
        if self.tls_ocsp_file is not None and self.tls_cert_file is None:
            raise ValueError("TLS_OCSP_FILE belongs to TLS_CERT_FILE, which is not set")
        if self.tls_client_auth != "none" and self.tls_client_ca_file is None:
            raise ValueError(f"TLS_CLIENT_AUTH={self.tls_client_auth} needs TLS_CLIENT_CA_FILE")
        if self.smarthost_tls_pins and self.smarthost_tls == "none":
            raise ValueError("SMARTHOST_TLS_PINS needs SMARTHOST_TLS=starttls or implicit")
        if self.smarthost_username and self.smarthost_tls == "none" and self.mode == "production":
            raise ValueError(
                "SMARTHOST_USERNAME needs SMARTHOST_TLS=starttls or implicit where SMTP_PROXY_MODE is production"
            )
        return self

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = types.MappingProxyType(os.environ),
    ) -> Settings:
        """Read all sources, strongest last.

        Raises:
            ConfigurationError: names the variable, file or `--set` key at fault and what it should be.
        """
        values, origin = gather(cls.model_fields, overrides or {}, environ)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigurationError(explain(error, origin)) from None

    def environment(self) -> dict[str, str]:
        """These settings as environment variables: only what differs from the defaults."""
        return {environment_name(field): str(value) for field, value in self._changed()}

    @property
    def control_socket(self) -> Path:
        """Where the SMTP service is asked to reload its certificates."""
        return self.smtp_control_socket or self.data_dir / "control" / "smtp.sock"

    def toml(self) -> str:
        """These settings as a file for SMTP_PROXY_CONFIG: only what differs from the defaults. It holds secrets."""
        return "".join(f"{field} = {toml_value(value)}\n" for field, value in self._changed())

    def _changed(self) -> Iterator[tuple[str, str | int | float | Path]]:
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            if value is not None and value != info.default:
                yield field, value.get_secret_value() if isinstance(value, SecretStr) else value
