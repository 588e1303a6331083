"""What a person sees when all is up: where things are, and what to try."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from smtp_proxy.dev.account import PASSWORD_FILE
from smtp_proxy.dev.plan import TENANT, USERNAME, Plan
from smtp_proxy.dev.ready import reachable, sink_url

_BOLD, _DIM, _GREEN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"


def text(plan: Plan, ca_file: Path, *, coloured: bool) -> str:
    """Several lines, made to be pasted from; no secret is in them."""
    settings = plan.settings
    host = reachable(settings.smtp_host)
    password_file = shown(settings.data_dir / PASSWORD_FILE)
    facts = [
        ("submission", f"{host}:{settings.smtp_starttls_port} (STARTTLS), {host}:{settings.smtp_tls_port} (TLS)"),
        ("login", f"user {USERNAME} of tenant {TENANT}, password in {password_file}"),
        ("CA", shown(ca_file)),
        (
            "delivers to",
            f"{settings.smarthost_host}:{settings.smarthost_port}" + (" (the sink)" if _to_sink(plan) else ""),
        ),
        ("data", shown(settings.data_dir)),
    ]
    if plan.has("sink"):
        facts.insert(-1, ("sink", f"{sink_url(settings)}/messages"))
    if settings.smtp_plaintext_port is not None:
        facts.insert(1, ("", f"127.0.0.1:{settings.smtp_plaintext_port} (no TLS, no AUTH: for benchmarks)"))
    if settings.smtp_accept_only:
        facts.insert(0, ("ATTENTION", "accept-only: mail is DISCARDED before it is stored"))
    lines = ["", _paint("smtp-proxy is up. Ctrl-C stops it.", _BOLD + _GREEN, coloured), ""]
    lines += [f"  {_paint(f'{name:<12}', _DIM, coloured)}{fact}" for name, fact in facts]
    lines += ["", _paint("Try this now, in another terminal:", _BOLD, coloured), ""]
    lines += [f"  {command}" for command in commands(plan, ca_file)]
    return "\n".join([*lines, ""])


def commands(plan: Plan, ca_file: Path) -> list[str]:
    """Ready to paste, from the folder in which we were started."""
    settings = plan.settings
    send = [
        tool("smtp-proxy-client"), "send", "--host", reachable(settings.smtp_host),
        "--port", str(settings.smtp_starttls_port), "--ca-file", shown(ca_file), "--user", USERNAME,
        "--password-file", shown(settings.data_dir / PASSWORD_FILE),
        "--from", "you@example.com", "--to", "friend@example.org", "--subject", "Hello",
    ]  # fmt: skip
    found = [shlex.join(send)] if plan.has("smtp") else []
    if plan.has("sink"):
        found.append(f"curl -s {sink_url(settings)}/messages")
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


def _to_sink(plan: Plan) -> bool:
    return plan.has("sink") and plan.settings.smarthost_port == plan.settings.sink_port


def _paint(value: str, colour: str, coloured: bool) -> str:
    return f"{colour}{value}{_PLAIN}" if coloured else value
