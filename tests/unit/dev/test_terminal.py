"""Lines for people: in order, whole, and never at the cost of whoever writes them."""

from __future__ import annotations

import io
import os
import threading

from smtp_proxy.config import Settings
from smtp_proxy.dev import services
from smtp_proxy.dev.terminal import Terminal


def test_lines_come_out_in_order() -> None:
    out = io.StringIO()
    terminal = Terminal(out)
    for n in range(1000):
        terminal.line(str(n))
    terminal.close()
    assert out.getvalue().split() == [str(n) for n in range(1000)]


def test_a_pipe_that_nobody_reads_stops_nobody() -> None:
    reading, writing = os.pipe()
    out = os.fdopen(writing, "w")
    terminal = Terminal(out)
    writer = threading.Thread(target=lambda: [terminal.line("x" * 1000) for _ in range(20_000)])
    writer.start()
    writer.join(20)
    assert not writer.is_alive()
    drained = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reading, 1 << 20), b"")])
    drained.start()
    terminal.close()
    out.close()
    drained.join(20)
    os.close(reading)


def test_a_line_has_its_service_in_front_once() -> None:
    ours = "12:00:00.123 smtp     | listening"
    assert services.labelled("smtp", ours, coloured=False) == ours
    assert services.labelled("smtp", '{"time":"x"}', coloured=False) == '{"time":"x"}'
    foreign = services.labelled("postgres", "LOG:  ready \x1b[2J", coloured=False)
    assert foreign.endswith(" postgres | LOG:  ready \\x1b[2J")


def test_services_get_no_secret_and_no_stray_setting_in_their_environment() -> None:
    settings = Settings.load({"db_password": "hush", "data_dir": "/data"}, {})
    ours = {"PATH": "/bin", "DB_PASSWORD": "mine", "SMTP_TLS_PORT": "1", "NO_COLOR": "1"}
    assert services.environment(settings, 4711, ours, coloured=True) == {
        "PATH": "/bin", "SMTP_PROXY_CONFIG": "/data/settings.toml", "HEALTH_PORT": "4711", "FORCE_COLOR": "1",
    }  # fmt: skip
