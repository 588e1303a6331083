"""Commands about tenants and credentials."""

from __future__ import annotations

import io
import re
from uuid import UUID

import pytest
from fix_shell import Shell


def test_tenants(shell: Shell) -> None:
    assert shell("tenant", "create", "acme") == 0
    assert shell.out.startswith("created tenant acme (")
    assert shell("tenant", "create", "acme") == 1
    assert shell("tenant", "create", "Not A Name") == 2
    (row,) = shell.json("tenant", "list")
    assert row["name"] == "acme"
    assert UUID(row["id"]).version == 7
    assert shell("tenant", "list") == 0
    assert "acme" in shell.out


def test_limits_of_a_tenant(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("tenant", "show", "acme") == 0
    assert shell.out.count("any number") == 3
    options = ("--messages-per-minute", "600", "--sessions", "5", "--at-limit", "hold")
    assert shell("tenant", "limits", "acme", *options) == 0
    shown = {tuple(line.rsplit(maxsplit=1)) for line in shell.out.splitlines()}
    assert shown >= {("messages per minute", "600"), ("sessions at once", "5"), ("at the limit", "hold")}
    assert shell("tenant", "limits", "acme", "--messages-per-minute", "none", "--recipients-per-minute", "9") == 0
    (tenant,) = shell.json("tenant", "list")
    assert tenant == shell.json("tenant", "show", "acme")
    assert tenant["limits"] == {
        "messages_per_minute": None, "recipients_per_minute": 9, "sessions": 5, "at_limit": "hold",
    }  # fmt: skip
    assert shell("tenant", "list") == 0
    assert "9 recipients/min, 5 sessions; hold" in shell.out


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", "٣", "2147483648", ""])
def test_what_is_no_limit(shell: Shell, limit: str) -> None:
    shell("tenant", "create", "acme")
    assert shell("tenant", "limits", "acme", f"--messages-per-minute={limit}") == 2
    assert "a whole number from 1 on, or none" in shell.err
    assert shell("tenant", "limits", "nobody", "--sessions", "1") == 1


def test_a_generated_password_is_shown_once_and_works(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("credential", "create", "acme", "app") == 0
    first = shell.out.splitlines()[1].removeprefix("password: ")
    assert len(first) == 32
    assert shell("credential", "reset-password", "app") == 0
    second = shell.out.splitlines()[1].removeprefix("password: ")
    assert second != first
    (row,) = shell.json("credential", "list")
    assert (row["username"], row["tenant"], row["disabled_at"]) == ("app", "acme", None)
    assert "argon2" not in shell.out
    assert shell("credential", "list", "--tenant", "acme") == 0
    assert second not in shell.out
    assert shell("credential", "list", "--tenant", "nobody") == 1


def test_a_given_password_is_not_shown(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("tenant", "create", "acme")
    monkeypatch.setattr("sys.stdin", io.StringIO("chosen by hand\n"))
    assert shell("credential", "create", "acme", "app", "--password-stdin") == 0
    assert "password" not in shell.out
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert shell("credential", "reset-password", "app", "--password-stdin") == 2
    assert "at least 8" in shell.err


def test_disabling(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    assert shell("credential", "disable", "app") == 0
    (row,) = shell.json("credential", "list")
    assert row["disabled_at"] is not None
    assert shell("credential", "disable", "nobody") == 1
    assert "no" in shell.err


def test_a_new_password_alone_does_not_enable_and_it_is_said(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    assert shell("credential", "reset-password", "app") == 0
    assert shell.err == ""
    shell("credential", "disable", "app")
    assert shell("credential", "reset-password", "app") == 0
    assert len(shell.out.splitlines()) == 2
    assert shell.err == "app stays disabled; `smtp-proxy credential enable app` lets it in again\n"


def test_enabling(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    shell("credential", "disable", "app")
    for _ in range(2):
        assert shell("credential", "enable", "app") == 0
        assert (shell.out, shell.err) == ("enabled credential app\n", "")
        (row,) = shell.json("credential", "list")
        assert row["disabled_at"] is None
    assert shell("credential", "enable", "nobody") == 1


@pytest.mark.parametrize(
    ("default", "own", "words"),
    [
        (30, None, "default (30 days)"),
        (0, None, "default (kept until dropped by hand)"),
        (0, "7", "7 days"),
        (30, "1", "1 day"),
    ],
)
def test_how_long_mail_is_kept_is_said_in_words(shell: Shell, default: int, own: str | None, words: str) -> None:
    shell("tenant", "create", "acme")
    changed = ("--retention-days", own) if own is not None else ()
    assert shell("--set", f"RETENTION_DAYS={default}", "tenant", "policy", "acme", *changed) == 0, shell.err
    lines = dict(re.split(" {2,}", line, maxsplit=1) for line in shell.out.splitlines())
    assert lines["retention days"] == words
    assert lines["max age seconds"] == "default (345600)"
    assert lines["idempotency seconds"] == "none"
    assert shell.json("tenant", "policy", "acme")["retention_days"] == (None if own is None else int(own))


def test_the_policy_of_a_tenant(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell.json("tenant", "policy", "acme")["on_unknown"] == "retry"
    assert shell("tenant", "policy", "acme", "--on-unknown", "hold", "--idempotency-seconds", "3600") == 0
    assert "hold" in shell.out
    policy = shell.json("tenant", "policy", "acme", "--idempotency-seconds", "none")
    assert (policy["on_unknown"], policy["idempotency_seconds"]) == ("hold", None)
    assert shell("tenant", "policy", "acme", "--idempotency-seconds", "0") == 2
    assert "a whole number from 1 on, or none" in shell.err
    assert shell("tenant", "policy", "nobody", "--on-unknown", "hold") == 1
