"""Metrics for CloudWatch: each line keeps the rules of the Embedded Metric Format."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from smtp_proxy.clock import ManualClock
from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.telemetry import emf, logs
from smtp_proxy.telemetry.metrics import (
    ATTEMPTS,
    BREAKERS_OPEN,
    ENVELOPES_ACCEPTED,
    GATE_CLOSED,
    REGISTRY,
    TLS_DAYS_LEFT,
    WORKER_BUSY,
    StatsCollector,
    register_stats,
)

# "The embedded metric format specification", JSON schema of the CloudWatch User Guide, with the bounds of its text.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["_aws"],
    "properties": {
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 1_600_000_000_000},
                "CloudWatchMetrics": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "properties": {
                            "Namespace": {"type": "string", "minLength": 1, "maxLength": 1024},
                            "Dimensions": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "maxItems": 30,
                                    "items": {"type": "string", "minLength": 1, "maxLength": 250},
                                },
                            },
                            "Metrics": {
                                "type": "array",
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name"],
                                    "properties": {
                                        "Name": {"type": "string", "minLength": 1, "maxLength": 1024},
                                        "Unit": {"enum": ["Seconds", "Bytes", "Percent", "Count", "None"]},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}

ROOT = Path(__file__).resolve().parents[3]
STATS = {
    "connections_active": 3,
    "connections_total": 10,
    "refused_busy_total": 0,
    "refused_connections_total": 0,
    "auth_failures_total": 0,
}


@pytest.fixture(autouse=True)
def _nothing_of_other_tests() -> Iterator[None]:
    gauges = (TLS_DAYS_LEFT, GATE_CLOSED, BREAKERS_OPEN)
    for gauge in gauges:
        gauge.clear()
    yield
    for gauge in gauges:
        gauge.clear()


@pytest.fixture
def core() -> Iterator[StatsCollector]:
    collector = register_stats(lambda: STATS)
    yield collector
    REGISTRY.unregister(collector)


def line_of(report: emf.EmfReport) -> dict[str, Any]:
    """As it is written: through the formatter of the log."""
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.configure(Settings(log_level="error"), "smtp", stream=stream)
    try:
        emf._write(report)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    (line,) = stream.getvalue().splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def check(line: Mapping[str, Any]) -> None:
    jsonschema.validate(line, SCHEMA)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for dimensions in directive["Dimensions"]:
            assert all(isinstance(line[name], str) and line[name] for name in dimensions)
        for metric in directive["Metrics"]:
            assert isinstance(line[metric["Name"]], int | float), metric


@pytest.mark.parametrize("service", ["smtp", "worker", "certs"])
def test_a_line_keeps_the_rules_whatever_the_log_level(service: str, core: StatsCollector) -> None:
    clock = ManualClock()
    report = emf.EmfReport("SmtpProxy", service, "submissions", clock=clock)
    clock.advance(60)
    line = line_of(report)
    check(line)
    assert line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    assert line["Service"] == "submissions"
    assert line["_aws"]["Timestamp"] == int(clock.now().timestamp() * 1000)
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "SmtpProxy"


def test_counters_say_what_was_added_and_gauges_what_is(core: StatsCollector) -> None:
    clock = ManualClock()
    TLS_DAYS_LEFT.labels("a.example").set(80)
    TLS_DAYS_LEFT.labels("b.example").set(12.5)
    ENVELOPES_ACCEPTED.inc(5)
    report = emf.EmfReport("SmtpProxy", "smtp", "smtp", clock=clock)
    ENVELOPES_ACCEPTED.inc(7)
    GATE_CLOSED.labels("busy").set(1)
    GATE_CLOSED.labels("store_down").set(0)
    clock.advance(60)
    first = report.take()
    clock.advance(60)
    second = report.take()
    assert (first["MessagesAccepted"], second["MessagesAccepted"]) == (7, 0)
    assert (first["ActiveConnections"], first["AcceptedConnections"]) == (3, 0)
    assert (first["CertificateDaysLeft"], first["BackpressureActive"], first["StoreDown"]) == (12.5, 1, 0)


def test_draining_is_no_backpressure(core: StatsCollector) -> None:
    report = emf.EmfReport("SmtpProxy", "smtp", "smtp", clock=ManualClock())
    GATE_CLOSED.labels("draining").set(1)
    assert report.take()["BackpressureActive"] == 0


def test_attempts_by_outcome_and_the_busy_share() -> None:
    clock = ManualClock()
    report = emf.EmfReport("SmtpProxy", "worker", "worker", clock=clock)
    ATTEMPTS.labels("delivered").inc(8)
    ATTEMPTS.labels("refused").inc(2)
    WORKER_BUSY.inc(15)
    clock.advance(60)
    line = report.take()
    assert (line["AttemptsMade"], line["MessagesDelivered"], line["MessagesFailed"]) == (10, 8, 2)
    assert (line["WorkerBusyShare"], line["BreakersOpen"]) == (25, 0)
    assert "ActiveConnections" not in line


def test_without_a_certificate_nothing_is_said_of_its_days(core: StatsCollector) -> None:
    line = emf.EmfReport("SmtpProxy", "smtp", "smtp", clock=ManualClock()).take()
    assert "CertificateDaysLeft" not in line
    check(line)


def test_every_sample_of_the_table_exists(core: StatsCollector) -> None:
    """One that is renamed in the registry would be 0 for ever."""
    families = {family.name for family in REGISTRY.collect()}
    for metric in emf.TABLE:
        assert {metric.sample, metric.sample.removesuffix("_total")} & families, metric.name


def test_the_cores_own_counters_are_those_of_the_table() -> None:
    told = (ROOT / "pyapp/smtp_proxy/_core.pyi").read_text()
    for metric in emf.TABLE:
        if metric.sample.startswith("smtp_core_"):
            assert re.search(rf"\b{metric.sample.removeprefix('smtp_core_').removesuffix('_total')}\b", told), metric


def test_the_runbook_lists_what_is_sent() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| [^|]+ \| ([^|]+) \|", (ROOT / "docs/RUNBOOK.md").read_text(), re.MULTILINE
    )
    told = {name: (unit, services.strip()) for name, unit, services in rows}
    for metric in emf.TABLE:
        assert told.get(metric.name) == (metric.unit, ", ".join(metric.services))


def test_when_lines_are_written() -> None:
    ecs = {emf.ECS_VARIABLE: "http://169.254.170.2/v4/x"}
    assert emf.wanted(Settings(), ecs)
    assert not emf.wanted(Settings(), {})
    assert not emf.wanted(Settings(log_format="console"), ecs)
    assert not emf.wanted(Settings(metrics_emf="off"), ecs)
    assert emf.wanted(Settings(metrics_emf="on"), {})
    with pytest.raises(ConfigurationError, match="METRICS_EMF=on needs LOG_FORMAT=json"):
        emf.wanted(Settings(metrics_emf="on", log_format="console"), {})


async def test_a_line_each_minute_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=emf.log.name):
        async with emf.reporting(Settings(metrics_emf="on", metrics_service="w"), "worker", clock=ManualClock()):
            pass
    (record,) = caplog.records
    fields = logs.fields(record)
    check(fields)
    assert fields["Service"] == "w"


def test_the_table_fits_one_line() -> None:
    assert len(emf.TABLE) <= emf.MAX_METRICS
    assert len({metric.name for metric in emf.TABLE}) == len(emf.TABLE)
