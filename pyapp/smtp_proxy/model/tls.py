"""TLS cipher suites by the names that IANA registered them with ("TLS Cipher Suites"). Pure."""

from __future__ import annotations

from typing import Final

# Those that the core offers: rustls with ring. TLS 1.3's are used with nothing older, and the others with 1.2 alone, so
# a name tells the version too.
_NAMES: Final = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0xC02B: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    0xC02C: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    0xC02F: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    0xC030: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    0xCCA8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCA9: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}


def suite_name(number: int | None) -> str | None:
    """Its name; one without a name here is `0x` and four hexadecimal digits (RFC 8314 4.3). None: there is none."""
    return None if number is None else _NAMES.get(number, f"0x{number:04X}")
