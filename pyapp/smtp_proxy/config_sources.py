"""Where settings come from, in which order, and what is said of one that is wrong; and how they are written down."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from smtp_proxy.errors import ConfigurationError

CONFIG_FILE_VARIABLE = "SMTP_PROXY_CONFIG"
# Names that another program on the machine may well use for itself keep our prefix in the environment.
_PREFIXED = ("mode", "data_dir", "hostname")


def environment_name(field: str) -> str:
    """The environment variable of a setting: `smtp_tls_port` -> SMTP_TLS_PORT, `mode` -> SMTP_PROXY_MODE."""
    return f"SMTP_PROXY_{field.upper()}" if field in _PREFIXED else field.upper()


def gather(
    fields: Iterable[str], overrides: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What all sources say, the strongest last, and which one said it. Raises ConfigurationError."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    path = environ.get(CONFIG_FILE_VARIABLE)
    if path:
        for key, value in _read_toml(Path(path)).items():
            values[key], origin[key] = value, f"{key} in {path}"
    for field in fields:
        name = environment_name(field)
        if name in environ:
            values[field], origin[field] = environ[name], f"environment variable {name}"
    for key, value in overrides.items():
        values[key], origin[key] = value, f"--set {key}"
    return values, origin


def explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    """A line for each mistake, with where it came from."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            lines.append(f"{origin.get(field, field)}: there is no such setting; `smtp-proxy settings` lists them")
        elif field:
            where = origin.get(field, environment_name(field))
            lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(problem["msg"].removeprefix("Value error, "))
    return "\n".join(lines)


def toml_value(value: str | float | Path) -> str:
    """As it stands in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # A JSON string is a TOML basic string, but for DEL (TOML 1.0, "String").
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{CONFIG_FILE_VARIABLE} names {path}, which cannot be read: {error.strerror}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat.update({f"{key}_{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat
