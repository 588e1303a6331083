"""Metrics in Prometheus' terms, in the default registry. Names say the noun and the unit.

A room may declare its own beside the code that moves them; those that two rooms or an alarm share are here.
`_total` counts up, a gauge is what is now. CloudWatch names of the specification stand in the help text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Where all of them are; for those who take a collector out again.
REGISTRY = prometheus_client.REGISTRY

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# -- ingress
ENVELOPES_ACCEPTED = Counter("smtp_envelopes_accepted_total", "Envelopes committed and answered with 250")
ENVELOPES_DEFERRED = Counter(
    "smtp_envelopes_deferred_total", "Envelopes answered with 451 because they could not be committed"
)
ACCEPTED_BYTES = Counter("smtp_accepted_bytes_total", "Bytes of bodies committed")
COMMIT_SECONDS = Histogram("smtp_commit_seconds", "Time of one accepting transaction", buckets=_SECONDS)
COMMIT_BATCH = Histogram(
    "smtp_commit_batch_envelopes",
    "Envelopes in one accepting transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
LOGINS = Counter(
    "smtp_logins_total", "Logins that were looked at, by result: accepted, rejected, unavailable", ["result"]
)
PASSWORD_HASHES = Counter(
    "smtp_password_hashes_total", "argon2id verifications computed (the rest came from the cache)"
)
TLS_RELOADS = Counter("smtp_tls_reloads_total", "Reloads of the certificates by result: ok, failed", ["result"])
OCSP_FETCHES = Counter("smtp_ocsp_fetches_total", "OCSP responses asked for by result: ok, failed", ["result"])
TLS_DAYS_LEFT = Gauge("smtp_tls_certificate_days_left", "Days until a certificate that serves expires", ["name"])
TLS_LIFE_LEFT = Gauge(
    "smtp_tls_certificate_life_left_percent", "What is left of the life of a certificate that serves", ["name"]
)
CERTIFICATE_DAYS_LEFT = Gauge(
    "smtp_certificate_days_left", "Days until a certificate in the store expires, as its issuer sees it", ["name"]
)
CERTIFICATE_OVERDUE = Gauge(
    "smtp_certificate_overdue_seconds", "For how long a certificate in the store has been due and not renewed", ["name"]
)
CERTIFICATE_ATTEMPTS = Counter(
    "smtp_certificate_attempts_total", "Attempts to get a certificate by result: ok, failed", ["result"]
)
GATE_CLOSED = Gauge("smtp_gate_closed", "1 while new mail is turned away (BackpressureActive), by reason", ["reason"])
TENANT_LIMITED = Counter(
    "smtp_tenant_limited_total",
    "Messages of tenants over their rate: rejected, delayed, held, held_full (rejected since too much is held)",
    ["action"],
)
HELD_MESSAGES = Gauge("smtp_held_messages", "Messages held until an operator releases them, when last counted")
HELD_BYTES = Gauge("smtp_held_bytes", "Bytes of the messages held, when last counted")

# -- queue
QUEUE_DEPTH = Gauge("smtp_queue_depth", "Messages ready and not yet taken (QueueDepth)")
BACKLOG_AGE = Gauge(
    "smtp_backlog_age_seconds", "For how long the oldest message that is due waits; 0 where another worker measures it"
)
LANE_DEPTH = Gauge(
    "smtp_lane_depth", "Messages ready and not done by lane: transactional, bulk; as the sweeper saw it last", ["lane"]
)
PUBLISHED = Counter(
    "smtp_stream_published_total", "Envelope ids put on the stream, by source: ingress, sweeper", ["source"]
)
PUBLISH_FAILED = Counter("smtp_stream_publish_failed_total", "Batches that could not be put on the stream")
SWEPT = Counter("smtp_swept_total", "Envelopes that the sweeper found due or orphaned")

SUBMITTED_AGAIN = Counter(
    "smtp_envelopes_submitted_again_total", "Messages answered 250 with the id of their first submission"
)

# -- delivery
ATTEMPTS = Counter(
    "smtp_attempts_total", "Delivery attempts by outcome: delivered, deferred, refused, unknown", ["outcome"]
)
ATTEMPT_KINDS = Counter(
    "smtp_attempts_by_kind_total",
    "Attempts that delivered nothing, by kind: soft, hard, block, quota, policy, auth, tls, dns, timeout, network, "
    "local, unknown",
    ["kind"],
)
UNKNOWN_OUTCOMES = Counter(
    "smtp_attempts_abandoned_total",
    "Attempts whose worker died or left within them: sent perhaps, and by the tenant's policy sent again or held",
)
REPORTS = Counter("smtp_reports_total", "Reports to senders (delivery status notifications) that became due")
SUPPRESSED = Counter("smtp_suppressed_total", "Recipients refused since they are on their tenant's suppression list")
BODIES_MISSING = Counter(
    "smtp_bodies_missing_total", "Claims of messages whose body is not in the database: for an alarm, it is never well"
)
FENCED = Counter("smtp_attempts_fenced_total", "Attempts not recorded because the claim was lost meanwhile")
QUEUE_SECONDS = Histogram(
    "smtp_queue_seconds", "Time from acceptance to the first attempt (QueueLatency)", buckets=_SECONDS
)
DELIVERY_SECONDS = Histogram("smtp_delivery_seconds", "Time of one delivery to the next hop", buckets=_SECONDS)
WORKER_BUSY = Counter(
    "smtp_worker_busy_seconds_total",
    "Time times the share in use of worker_concurrency, or of the room for slow ones beside it: 1 a second at most",
)
LINE_WAITING = Gauge("smtp_line_waiting", "Deliveries that wait for their destination, without holding a turn")
POSTPONED = Counter(
    "smtp_postponed_total", "Deliveries sent back to the queue because their destination is busy, by route", ["route"]
)
DESTINATIONS_SLOWED = Gauge("smtp_destinations_slowed", "Destinations that asked for less (421, 4xx) and get less")
BREAKERS_OPEN = Gauge(
    "smtp_breakers_open", "Next hops that are not tried, after failures in a row, by route", ["route"]
)
BREAKER_OPENED = Counter("smtp_breaker_opened_total", "Times a next hop's circuit breaker opened, by route", ["route"])

WEBHOOK_EVENTS = Counter("smtp_webhook_events_total", "Events told to webhooks, and how it went", ["result"])
WEBHOOKS_DISABLED = Counter("smtp_webhooks_disabled_total", "Webhooks that were switched off for taking nothing")

FORGOTTEN = Counter("smtp_forgotten_total", "Messages, and contents, that were deleted in batches", ["what"])


# -- the installation's surroundings
SECRET_READS = Counter(
    "smtp_secret_reads_total", "Secrets read from Secrets Manager, by result: changed, same, failed", ["result"]
)
TASK_PROTECTED = Gauge("smtp_task_protected", "1 while ECS is told to leave this task alone when it scales in")
TASK_PROTECTION_FAILED = Counter("smtp_task_protection_failed_total", "Times the agent of ECS did not do as asked")


class StatsCollector(Collector):
    """Numbers kept elsewhere (the core's `stats()`), read when they are asked for and at no other time.

    `*_total` becomes a counter, the rest gauges; each is prefixed `smtp_`.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]], help_texts: Mapping[str, str] | None = None) -> None:
        self._read = read
        self._help = help_texts or {}

    def collect(self) -> Iterable[Metric]:
        for name, value in self._read().items():
            text = self._help.get(name, f"{name.replace('_', ' ')} of the SMTP core")
            if name.endswith("_total"):
                yield CounterMetricFamily(f"smtp_core_{name}", text, value=value)
            else:
                yield GaugeMetricFamily(f"smtp_core_{name}", text, value=value)

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering does not read


def register_stats(read: Callable[[], Mapping[str, int]]) -> StatsCollector:
    """Expose a stats function on /metrics; give the result to `REGISTRY.unregister` to stop that."""
    collector = StatsCollector(read)
    REGISTRY.register(collector)
    return collector
