"""What commands take, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from smtp_proxy.config import Settings, environment_name
from smtp_proxy.errors import ConfigurationError

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting (see `smtp-proxy settings`); may be given again."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def settings_of(context: typer.Context, set_: Sequence[str] | None = None) -> Settings:
    """All settings, with what `--set` says before the command and after it. Raises ConfigurationError."""
    return Settings.load({**context.obj, **parse_overrides(set_)})


def parse_overrides(pairs: Sequence[str] | None) -> dict[str, str]:
    """`KEY=VALUE` each; a key may be written like the environment variable.

    Raises:
        ConfigurationError: not of that form, or there is no such setting.
    """
    by_environment = {environment_name(field): field for field in Settings.model_fields}
    overrides: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {pair}: write KEY=VALUE")
        field = by_environment.get(key, key)
        if field not in Settings.model_fields:
            raise ConfigurationError(f"--set {key}: there is no such setting; `smtp-proxy settings` lists them")
        overrides[field] = value
    return overrides


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, with an IPv6 address in brackets.

    Raises:
        ConfigurationError: not of that form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{text}: write HOST:PORT, such as 127.0.0.1:2525 or [::1]:2525")
    return host, int(port)
