"""Every `smtp-proxy …` in our pages is one that there is, with arguments and options that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import trouble_with, typed_in

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "terraform").rglob("README.md"))]
TYPED = [(page.relative_to(ROOT), *typed) for page in PAGES for typed in typed_in(page.read_text())]


def test_they_are_found() -> None:
    pages = {str(page) for page, _, _ in TYPED}
    assert {"docs/DEPLOY.md", "docs/RUNBOOK.md", "docs/ROUTES.md", "README.md"} <= pages
    assert len(TYPED) > 100


@pytest.mark.parametrize(
    ("page", "command", "is_script"), TYPED, ids=[f"{page.name}: {command}" for page, command, _ in TYPED]
)
def test_the_command_line_takes_what_is_typed(page: Path, command: str, *, is_script: bool) -> None:
    assert trouble_with(command, is_script=is_script) is None, page


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("    ../.venv/bin/smtp-proxy plan --per-minute 5    # why\n", [("plan --per-minute 5    # why", True)]),
        ("so `smtp-proxy doctor` says, and `smtp-proxy-client send`", [("doctor", False)]),
        ('    inside "explain ID"\n', [("explain ID", True)]),
        ("    A=1 smtp-proxy routes check && smtp-proxy dev | cat\n", [("routes check", True), ("dev", True)]),
        ('    A="$(smtp-proxy settings)"\n', [("settings", True)]),
        ("```sh\nsmtp-proxy bans list &\n```\n", [("bans list", True)]),
        ("the smtp-proxy of today", []),
    ],
)
def test_where_commands_are_looked_for(line: str, commands: list[tuple[str, bool]]) -> None:
    assert typed_in(line) == commands


@pytest.mark.parametrize(
    ("command", "is_script", "said"),
    [
        ("domains add acme acme.example", False, "is more than it takes"),  # as docs/DEPLOY.md once had it
        ("domains add acme.example", True, "tenant is missing"),
        ("domains add acme.example", False, None),
        ("domains add acme.example --tenant acme", True, None),
        ("domains add", True, "missing"),
        ("domains", True, None),
        ("domains adds x", False, "no command"),
        ("deploy worker --image x", False, "cluster is missing"),
        ("deploy worker --image x \N{HORIZONTAL ELLIPSIS}", False, None),
        ("deploy", False, None),
        ("doctor --onyl domains", False, "No such option"),
        ("webhooks replay ID [--all]", False, None),
    ],
)
def test_what_is_wrong_is_seen(command: str, *, is_script: bool, said: str | None) -> None:
    trouble = trouble_with(command, is_script=is_script)
    assert (trouble is None) if said is None else (said in (trouble or ""))
