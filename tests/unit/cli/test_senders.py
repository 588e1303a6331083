"""As whom a credential may send."""

from __future__ import annotations

import pytest
from fix_shell import Shell


def senders(shell: Shell) -> list[str]:
    (row,) = shell.json("credential", "list")
    return list(row["allowed_senders"])


def test_a_credential_may_send_as_anyone_unless_it_is_said(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app")
    assert senders(shell) == []
    assert shell("credential", "senders", "app") == 0
    assert shell.out == "app may send as: any\n"
    assert shell("credential", "list") == 0
    assert "any" in shell.out.split()


def test_senders_of_a_new_credential(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    assert shell("credential", "create", "acme", "bad", "--sender", "example.com", "--sender", "a b") == 2
    assert shell.err.startswith('smtp-proxy: "a b" is no sender pattern: write user@example.com')
    assert shell.json("credential", "list") == []
    created = shell("credential", "create", "acme", "app", "--sender", "@Example.com", "--sender", "example.com")
    assert (created, senders(shell)) == (0, ["example.com"])


def test_changing_senders(shell: Shell) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app", "--sender", "example.com")
    assert shell("credential", "senders", "app", "--add", '"User"@Example.net', "--add", "<>") == 0
    assert shell.out == "app may send as: example.com, user@example.net, <>\n"
    assert shell("credential", "senders", "app", "--remove", "@EXAMPLE.com", "--add", "*.example.com") == 0
    assert senders(shell) == ["user@example.net", "<>", "*.example.com"]
    assert shell("credential", "senders", "app", "--set", "a@b.example", "--set", "c.example") == 0
    assert senders(shell) == ["a@b.example", "c.example"]
    assert shell("credential", "senders", "app", "--any") == 0
    assert senders(shell) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--remove", "example.com"], 2, "no sender would be left"),
        (["--remove", "example.org"], 2, "example.org: not among the allowed senders, which are example.com"),
        (["--set", "user"], 2, '"user" is no sender pattern'),
        (["--add", "*"], 2, '"*" is no sender pattern'),
        (["--any", "--add", "example.org"], 2, "exclude each other"),
        (["--any", "--set", "example.org"], 2, "exclude each other"),
        (["--set", "example.org", "--remove", "example.com"], 2, "exclude each other"),
    ],
)
def test_senders_that_are_not_changed(shell: Shell, arguments: list[str], code: int, said: str) -> None:
    shell("tenant", "create", "acme")
    shell("credential", "create", "acme", "app", "--sender", "example.com")
    assert shell("credential", "senders", "app", *arguments) == code
    assert said in shell.err
    assert len(shell.err.splitlines()) == 1
    assert senders(shell) == ["example.com"]


@pytest.mark.parametrize("arguments", [[], ["--any"], ["--add", "example.com"], ["--set", "example.com"]])
def test_senders_of_nobody(shell: Shell, arguments: list[str]) -> None:
    assert shell("credential", "senders", "nobody", *arguments) == 1
