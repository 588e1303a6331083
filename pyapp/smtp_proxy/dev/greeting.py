"""What a person sees when all is up: where things are, and what to try."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from smtp_proxy.dev.account import API_KEY_FILE, PASSWORD_FILE
from smtp_proxy.dev.hosts import bracketed, reachable
from smtp_proxy.dev.plan import TENANT, USERNAME, Plan
from smtp_proxy.dev.ready import api_url, sink_url

_BOLD, _DIM, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"


def text(plan: Plan, ca_file: Path | None, *, coloured: bool) -> str:
    """Several lines, made to be pasted from; no secret is in them."""
    lines = ["", _paint("smtp-proxy is up. Ctrl-C stops it.", _BOLD + _GREEN, coloured), ""]
    lines += [f"  {_paint(f'{name:<12}', _DIM, coloured)}{fact}" for name, fact in _facts(plan, ca_file)]
    lines += ["", _paint("Try this now, in another terminal:", _BOLD, coloured), ""]
    lines += [f"  {command}" for command in commands(plan, ca_file)]
    return "\n".join([*lines, ""])


def _facts(plan: Plan, ca_file: Path | None) -> Iterator[tuple[str, str]]:
    settings = plan.settings
    host = bracketed(reachable(settings.smtp_host))
    if settings.smtp_accept_only:
        yield "ATTENTION", "accept-only: mail is DISCARDED before it is stored"
    if plan.has("smtp"):
        yield "submission", f"{host}:{settings.smtp_starttls_port} (STARTTLS), {host}:{settings.smtp_tls_port} (TLS)"
        if settings.smtp_plaintext_port is not None:
            yield "", f"127.0.0.1:{settings.smtp_plaintext_port} (no TLS, no AUTH: for benchmarks)"
        yield "login", f"user {USERNAME} of tenant {TENANT}, password in {shown(settings.data_dir / PASSWORD_FILE)}"
        yield "CA", shown(ca_file) if ca_file is not None else f"that of {shown(settings.tls_cert_file or Path())}"
    if plan.has("worker"):
        to_sink = plan.has("sink") and settings.smarthost_port == settings.sink_port
        yield (
            "delivers to",
            f"{bracketed(settings.smarthost_host)}:{settings.smarthost_port}" + (" (the sink)" if to_sink else ""),
        )
    if plan.has("sink"):
        yield "sink", f"{sink_url(settings)}/messages"
    if plan.has("api"):
        yield "API", f"{api_url(settings)}/api/v1, key in {shown(settings.data_dir / API_KEY_FILE)}"
    yield "data", shown(settings.data_dir)


def commands(plan: Plan, ca_file: Path | None) -> list[str]:
    """Ready to paste, from the folder in which we were started."""
    settings = plan.settings
    send = [
        tool("smtp-proxy-client"), "send", "--host", reachable(settings.smtp_host),
        "--port", str(settings.smtp_starttls_port), *(("--ca-file", shown(ca_file)) if ca_file is not None else ()),
        "--user", USERNAME, "--password-file", shown(settings.data_dir / PASSWORD_FILE),
        "--from", "you@example.com", "--to", "friend@example.org", "--subject", "Hello",
    ]  # fmt: skip
    found = [shlex.join(send)] if plan.has("smtp") else []
    if plan.has("sink"):
        found.append(f"curl -s {sink_url(settings)}/messages")
    if plan.has("api"):
        key_file = shlex.quote(shown(settings.data_dir / API_KEY_FILE))
        found.append(f'curl -s -H "Authorization: Bearer $(cat {key_file})" {api_url(settings)}/api/v1/messages')
    settings_file = shlex.quote(shown(settings.data_dir / "settings.toml"))
    found.append(f"SMTP_PROXY_CONFIG={settings_file} {shlex.quote(tool('smtp-proxy'))} messages list")
    return found


def tool(name: str) -> str:
    """A command of ours as it can be called here: by its name if that finds it, else by its path."""
    ours = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    if on_path is not None and (not ours.exists() or Path(on_path).resolve() == ours.resolve()):
        return name
    return shown(ours)


def shown(path: Path) -> str:
    """Relative where that is shorter to read."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _paint(value: str, colour: str, coloured: bool) -> str:
    return f"{colour}{value}{_PLAIN}" if coloured else value
