"""Metrics for CloudWatch, as log lines in the Embedded Metric Format: nobody has to be asked, nothing is called.

Once a minute one line tells what `TABLE` lists, out of the registry that /metrics shows: what is now, or by how much a
counter grew since the last line. CloudWatch Logs makes metrics of it (namespace METRICS_NAMESPACE, the one dimension
`Service`). Numbers of one process: CloudWatch adds up, averages or takes the greatest over the tasks of a service.

Source: "Specification: CloudWatch embedded metric format", Amazon CloudWatch User Guide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry.metrics import REGISTRY
from smtp_proxy.telemetry.tasks import end

if TYPE_CHECKING:
    from smtp_proxy.clock import Clock
    from smtp_proxy.config import Settings

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # whatever LOG_LEVEL says: an alarm must not fall silent since somebody wants fewer words

# Of the specification, for one line.
MAX_METRICS: Final = 100
MAX_DIMENSIONS: Final = 30
DIMENSION: Final = "Service"
# Where tasks of ECS find their metadata (ECS developer guide, "task metadata endpoint version 4").
ECS_VARIABLE: Final = "ECS_CONTAINER_METADATA_URI_V4"
_PERIOD_SECONDS: Final = 60.0

Unit = Literal["Count", "Bytes", "Seconds", "Percent"]
# What of the samples is told: their sum, least or greatest now; by how much their sum grew; how many percent of the
# time since the last line that growth, in seconds, is.
How = Literal["sum", "least", "greatest", "grown", "share"]


@dataclass(frozen=True)
class EmfMetric:
    """One metric of CloudWatch: the samples of the registry that it is made of, and how."""

    name: str
    unit: Unit
    how: How
    sample: str
    services: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # only samples with one of these values


Samples = list[tuple[str, Mapping[str, str], float]]

_SMTP: Final = ("smtp",)
_WORKER: Final = ("worker",)
_BOTH: Final = ("smtp", "worker")
_CERTS: Final = ("certs",)
_ALL: Final = ("smtp", "worker", "certs", "api")

# docs/RUNBOOK.md, "CloudWatch", says what they mean; a test keeps the two alike.
TABLE: Final = (
    EmfMetric("ActiveConnections", "Count", "sum", "smtp_core_connections_active", _SMTP),
    EmfMetric("AcceptedConnections", "Count", "grown", "smtp_core_connections_total", _SMTP),
    EmfMetric("MessagesAccepted", "Count", "grown", "smtp_envelopes_accepted_total", _SMTP),
    EmfMetric("BytesAccepted", "Bytes", "grown", "smtp_accepted_bytes_total", _SMTP),
    EmfMetric("MessagesDeferred", "Count", "grown", "smtp_envelopes_deferred_total", _SMTP),
    EmfMetric("BackpressureRefusals", "Count", "grown", "smtp_core_refused_busy_total", _SMTP),
    EmfMetric("CapacityRefusals", "Count", "grown", "smtp_core_refused_connections_total", _SMTP),
    EmfMetric(
        "BackpressureActive",
        "Count",
        "greatest",
        "smtp_gate_closed",
        _SMTP,
        {"reason": ("busy", "store_down")},
    ),
    EmfMetric("StoreDown", "Count", "greatest", "smtp_gate_closed", _SMTP, {"reason": ("store_down",)}),
    EmfMetric("LoginFailures", "Count", "grown", "smtp_core_auth_failures_total", _SMTP),
    EmfMetric("CertificateDaysLeft", "Count", "least", "smtp_tls_certificate_days_left", _SMTP),
    EmfMetric("CertificateLifeLeft", "Percent", "least", "smtp_tls_certificate_life_left_percent", _SMTP),
    EmfMetric("QueueDepth", "Count", "greatest", "smtp_queue_depth", _BOTH),
    EmfMetric("BacklogAge", "Seconds", "greatest", "smtp_backlog_age_seconds", _WORKER),
    EmfMetric("AttemptsMade", "Count", "grown", "smtp_attempts_total", _WORKER),
    EmfMetric("MessagesDelivered", "Count", "grown", "smtp_attempts_total", _WORKER, {"outcome": ("delivered",)}),
    EmfMetric("MessagesRetried", "Count", "grown", "smtp_attempts_total", _WORKER, {"outcome": ("deferred",)}),
    EmfMetric("MessagesFailed", "Count", "grown", "smtp_attempts_total", _WORKER, {"outcome": ("refused",)}),
    EmfMetric("MessagesUnknown", "Count", "grown", "smtp_attempts_total", _WORKER, {"outcome": ("unknown",)}),
    EmfMetric("WorkerBusyShare", "Percent", "share", "smtp_worker_busy_seconds_total", _WORKER),
    EmfMetric("BreakersOpen", "Count", "sum", "smtp_breakers_open", _WORKER),
    EmfMetric(
        "WebhookFailures", "Count", "grown", "smtp_webhook_events_total", _WORKER, {"result": ("again", "given_up")}
    ),
    EmfMetric("IssuedCertificateDaysLeft", "Count", "least", "smtp_certificate_days_left", _CERTS),
    EmfMetric("CertificateOverdue", "Seconds", "greatest", "smtp_certificate_overdue_seconds", _CERTS),
    EmfMetric("CertificatesIssued", "Count", "grown", "smtp_certificate_attempts_total", _CERTS, {"result": ("ok",)}),
    EmfMetric(
        "CertificateFailures", "Count", "grown", "smtp_certificate_attempts_total", _CERTS, {"result": ("failed",)}
    ),
    EmfMetric("TaskProtected", "Count", "greatest", "smtp_task_protected", _BOTH),
    EmfMetric("TaskProtectionFailures", "Count", "grown", "smtp_task_protection_failed_total", _BOTH),
    EmfMetric("SecretReads", "Count", "grown", "smtp_secret_reads_total", _ALL),
    EmfMetric("SecretReadFailures", "Count", "grown", "smtp_secret_reads_total", _ALL, {"result": ("failed",)}),
)


def wanted(settings: Settings, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether lines are written: asked for, or `auto` in a task of ECS whose log is JSON. Raises ConfigurationError."""
    if settings.metrics_emf == "auto":
        return settings.log_format == "json" and bool(environ.get(ECS_VARIABLE))
    if settings.metrics_emf == "on" and settings.log_format != "json":
        raise ConfigurationError(
            "METRICS_EMF=on needs LOG_FORMAT=json, since CloudWatch reads metrics from JSON alone; change one of them"
        )
    return settings.metrics_emf == "on"


class EmfReport:
    """Makes the lines of one service, which CloudWatch knows by `name`."""

    def __init__(self, namespace: str, service: str, name: str, *, clock: Clock) -> None:
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._metrics = [metric for metric in TABLE if service in metric.services]
        self._seen = {metric.name: _total(metric, read_samples()) or 0.0 for metric in self._metrics}
        self._at = clock.monotonic()

    def take(self) -> dict[str, Any]:
        """The fields of one line, and from here on counters are counted anew."""
        samples, now = read_samples(), self._clock.monotonic()
        seconds, self._at = now - self._at, now
        values: dict[str, float] = {}
        for metric in self._metrics:
            value = self._value(metric, samples, seconds)
            if value is not None and math.isfinite(value):
                values[metric.name] = round(value, 3)
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [[DIMENSION]],
            "Metrics": [{"Name": m.name, "Unit": m.unit} for m in self._metrics if m.name in values],
        }
        timestamp = int(self._clock.now().timestamp() * 1000)
        return {"_aws": {"Timestamp": timestamp, "CloudWatchMetrics": [directive]}, DIMENSION: self._name, **values}

    def _value(self, metric: EmfMetric, samples: Samples, seconds: float) -> float | None:
        total = _total(metric, samples)
        if metric.how not in ("grown", "share"):
            return total
        total = total or 0.0
        grown, self._seen[metric.name] = max(0.0, total - self._seen[metric.name]), total
        if metric.how == "grown":
            return grown
        return min(100.0, 100.0 * grown / seconds) if seconds > 0 else None


def read_samples() -> Samples:
    """All of the registry, now."""
    return [(s.name, s.labels, s.value) for family in REGISTRY.collect() for s in family.samples]


@contextlib.asynccontextmanager
async def reporting(settings: Settings, service: str, *, clock: Clock) -> AsyncIterator[None]:
    """While the block runs, a line each minute if they are wanted, and a last one. Raises ConfigurationError."""
    if not wanted(settings):
        yield
        return
    report = EmfReport(settings.metrics_namespace, service, settings.metrics_service or service, clock=clock)
    task = asyncio.create_task(_report_each(report, _PERIOD_SECONDS), name="metrics for CloudWatch")
    try:
        yield
    finally:
        await end([task])
        _write(report)


async def _report_each(report: EmfReport, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        _write(report)


def _write(report: EmfReport) -> None:
    try:
        log.info("metrics", extra={"action": "metrics", **report.take()})
    except Exception:  # of a collector: the service goes on, and the alarm on missing data tells
        log.exception("metrics could not be read", extra={"action": "metrics_failed"})


def _total(metric: EmfMetric, samples: Samples) -> float | None:
    """One number of all samples that belong to it. Without any it is 0; the least of none is None."""
    values = [
        value
        for name, labels, value in samples
        if name == metric.sample and all(labels.get(label) in some for label, some in metric.labels.items())
    ]
    match metric.how:
        case "least":
            return min(values, default=None)
        case "greatest":
            return max(values, default=0.0)
        case _:
            return sum(values)
