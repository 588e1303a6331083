"""What rules are told of a resource, and how they read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

import yaml

from smtp_proxy_infra import settings

Props = Mapping[str, Any]
Sections = Mapping[str, Mapping[str, Any]]
# As which a stack is looked at that does not say what it is.
STRICTEST = "production"


class Unknown:
    """What is known only when AWS has made something else: there, and so true; any other question raises `error`.

    So a rule that needs the value is not taken for one that had nothing to say: Pulumi says that it could not be asked.
    """

    __hash__ = object.__hash__

    def __init__(self, error: Exception) -> None:
        self._error = error

    def refuse(self, *_: object) -> NoReturn:
        raise self._error

    def __eq__(self, other: object) -> bool:
        self.refuse()

    def __iter__(self) -> Iterator[Any]:
        self.refuse()

    def __getattr__(self, name: str) -> Any:
        self.refuse()

    __len__ = __contains__ = __getitem__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = refuse

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Found:
    """A resource: what it was given, its provider's inputs; of a whole stack also what it waits for, and for which."""

    kind: str
    name: str
    urn: str
    props: Props
    provider: Props | None
    depends_on: list[Found] = field(default_factory=list)
    given_by: dict[str, list[Found]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def environment(self) -> str:
        """What the default tags of the provider say; "" where they do not say it, or it is none of stack.yaml."""
        said = default_tags(self.provider).get("Environment", "")
        return said if said in environments() else ""

    @property
    def settings(self) -> Sections:
        """What stack.yaml says of the environment."""
        return sections(self.environment or STRICTEST)

    @property
    def is_production(self) -> bool:
        return (self.environment or STRICTEST) == STRICTEST

    def stands_on(self, key: str, kind: str) -> list[Found]:
        """The resources of a kind which an argument was made of."""
        return [each for each in self.given_by.get(key, ()) if each.kind == kind]


@cache
def sections(environment: str) -> Sections:
    return settings.load(environment)


@cache
def environments() -> frozenset[str]:
    return frozenset(yaml.safe_load(settings.STACK.read_text())["environments"])


def default_tags(provider: Props | None) -> Mapping[str, str]:
    tags = document((provider or {}).get("defaultTags") or {}).get("tags")
    return tags or {}


def document(value: Any) -> Mapping[str, Any]:
    """Of JSON, as a string or as it is."""
    if isinstance(value, Unknown):
        value.refuse()
    found = json.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, Mapping) else {}


def documents(value: Any) -> list[Mapping[str, Any]]:
    """Of a list in JSON, as a string or as it is."""
    if isinstance(value, Unknown):
        value.refuse()
    found = json.loads(value) if isinstance(value, str) else value
    return list(found or ())


def as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def block(props: Props, *path: str) -> Mapping[str, Any]:
    """A nested block, and of a list of blocks the first; empty where there is none."""
    value: Any = props
    for key in path:
        value = value.get(key) or {}
        value = value[0] if isinstance(value, list) and value else value or {}
    return value if isinstance(value, Mapping) else {}


def is_on(value: Any) -> bool:
    """A truth, which some arguments want as a string; what is not known yet is none."""
    return value is True or (isinstance(value, str) and value == "true")


def strings(value: Any) -> Iterator[str]:
    """Every string within."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from strings(each)
