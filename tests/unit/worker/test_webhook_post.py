"""Which addresses are spoken to, and what a signature is made of."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from smtp_proxy.config import Settings
from smtp_proxy.errors import ConfigurationError, InvalidValue
from smtp_proxy.worker.webhook_post import Guard, check_url, signature
from smtp_proxy.worker.webhooks import backoff_seconds

PRIVATE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
)  # fmt: skip
PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


def test_only_public_addresses_are_spoken_to() -> None:
    guard = Guard("")
    assert [address for address in PRIVATE if guard.permits(address)] == []
    assert [address for address in PUBLIC if not guard.permits(address)] == []


def test_networks_may_be_allowed() -> None:
    guard = Guard("10.0.0.0/8, fd00::/8")
    assert guard.permits("10.1.2.3")
    assert guard.permits("fd12::1")
    assert guard.permits("::ffff:10.0.0.1")
    assert not guard.permits("192.168.0.1")
    with pytest.raises(ConfigurationError, match="webhook_allowed_networks"):
        Settings.load({"webhook_allowed_networks": "10.0.0.1/8"}, {})


@pytest.mark.parametrize(
    "url",
    ["http://x.example/", "ftp://x.example/", "https:///path", "x.example", "https://u:p@x.example/", "https://x/#y"],
)
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        check_url(url, https_only=True)
    assert "u:p" not in str(caught.value)


def test_a_signature_is_over_time_and_body() -> None:
    expected = hmac.new(b"secret", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert signature(b"secret", 1_700_000_000, b'{"a":1}') == f"t=1700000000,v1={expected}"


def test_the_pause_grows_to_an_hour() -> None:
    delays = [backoff_seconds(n, 0.5) for n in range(1, 200)]
    assert delays[:3] == [5.0, 10.0, 20.0]
    assert max(delays) == delays[-1] == 3600.0
    assert (backoff_seconds(1, 0.0), backoff_seconds(1, 0.999)) == pytest.approx((4.0, 6.0), abs=0.01)
