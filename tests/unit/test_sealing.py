"""Secrets at rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtp_proxy.errors import ConfigurationError
from smtp_proxy.sealing import Sealed, SecretKeys, new_key_line, read_keys


def keys_of(tmp_path: Path, text: str) -> SecretKeys:
    file = tmp_path / "key"
    file.write_text(text)
    return read_keys(file)


def test_what_is_sealed_opens_in_its_place_alone(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "# a comment\n\n" + new_key_line())
    sealed = keys.seal(b"a secret", "domain_keys.sealed_key of 1")
    assert b"a secret" not in sealed.data
    assert keys.seal(b"a secret", "domain_keys.sealed_key of 1").data != sealed.data, "another nonce each time"
    assert keys.open(sealed, "domain_keys.sealed_key of 1") == b"a secret"
    changed = Sealed(sealed.key_id, sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))
    for wrong, place in ((sealed, "domain_keys.sealed_key of 2"), (changed, "domain_keys.sealed_key of 1")):
        with pytest.raises(ConfigurationError, match="does not open"):
            keys.open(wrong, place)


def test_an_older_key_opens_and_the_first_seals(tmp_path: Path) -> None:
    old_line, new_line = new_key_line(), new_key_line()
    sealed = keys_of(tmp_path, old_line).seal(b"x", "place")
    both = keys_of(tmp_path, new_line + old_line)
    assert both.open(sealed, "place") == b"x"
    assert both.seal(b"x", "place").key_id == new_line.partition(":")[0]
    with pytest.raises(ConfigurationError, match="has no key"):
        keys_of(tmp_path, new_line).open(sealed, "place")


def test_a_file_that_can_not_be_used_is_named_and_never_shown(tmp_path: Path) -> None:
    secret = "c2VjcmV0LXNlY3JldA=="
    line = new_key_line()
    for text, expected in (("", "holds no key"), (f"a:{secret}\n", "line 1"), (line + line, "line 2"), ("é", "ASCII")):
        with pytest.raises(ConfigurationError, match=expected) as caught:
            keys_of(tmp_path, text)
        assert secret not in str(caught.value)
    with pytest.raises(ConfigurationError, match="can not be read"):
        read_keys(tmp_path / "none")


def test_without_a_file_nothing_is_sealed() -> None:
    with pytest.raises(ConfigurationError, match="SECRET_KEY_FILE is not set"):
        read_keys(None).seal(b"x", "place")
    assert "x" not in repr(SecretKeys({"id": b"x" * 32}))
