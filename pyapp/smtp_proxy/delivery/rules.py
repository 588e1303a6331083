"""The rules of replies.toml: from a reply to its kind, and sometimes to another outcome than its code has. Pure.

Rules are data so that they can be read, reviewed and added to without code: large receivers change their words often.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from smtp_proxy.model.attempt import Kind, Outcome

if TYPE_CHECKING:
    from smtp_proxy.model.attempt import RecipientResult

_KEYS: Final = frozenset({"name", "code", "status", "text", "kind", "outcome", "advice", "examples"})
# What is looked at of a text: who explains, explains at the beginning. Characters.
_TEXT_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A pattern that is None fits everything."""

    name: str
    kind: Kind
    code: re.Pattern[str]
    status: re.Pattern[str] | None
    text: re.Pattern[str] | None
    deferred: bool  # although the code says for good
    examples: tuple[str, ...]
    advice: str = ""  # to the operator of this service, who can mend it

    def fits(self, code: str, status: str, text: str) -> bool:
        """Whether it speaks of such a reply."""
        return (
            self.code.fullmatch(code) is not None
            and (self.status is None or self.status.fullmatch(status) is not None)
            and (self.text is None or self.text.search(text) is not None)
        )


def read_rules(source: str) -> tuple[Rule, ...]:
    """Raises ValueError naming the rule and what is wrong with it."""
    return tuple(_rule(entry) for entry in tomllib.loads(source)["rule"])


@lru_cache(maxsize=4096)
def rule_for(code: int, status: str, text: str) -> Rule | None:
    """The first that fits; None only for codes of success. Replies repeat, so what was found is kept."""
    text = text[:_TEXT_MAX]
    digits = f"{code:03}"
    return next((rule for rule in RULES if rule.fits(digits, status, text)), None)


def judge(code: int, status: str, text: str, outcome: Outcome) -> tuple[Outcome, Kind]:
    """The outcome, which its code has as a rule, and the kind. `code` 0: no reply, and the text is ours."""
    if outcome is Outcome.DELIVERED:
        return outcome, Kind.ACCEPTED
    rule = rule_for(code, status, text)
    if rule is None:
        return outcome, Kind.SOFT if outcome is Outcome.DEFERRED else Kind.POLICY
    return (Outcome.DEFERRED if rule.deferred else outcome), rule.kind


def advice_for(result: RecipientResult) -> str:
    """What an operator is to do about a reply; "" as a rule."""
    rule = rule_for(result.reply_code, result.enhanced_code, result.reply_text) if result.reply_code else None
    return rule.advice if rule is not None else ""


def _rule(entry: dict[str, Any]) -> Rule:
    name = entry.get("name", "without a name")
    if wrong := (set(entry) - _KEYS) | ({"name", "code", "kind", "examples"} - set(entry)):
        raise ValueError(f"replies.toml, rule {name}: missing or unknown: {', '.join(sorted(wrong))}")
    if entry.get("outcome") not in (None, "deferred"):
        raise ValueError(f"replies.toml, rule {name}: outcome can only be deferred")
    try:
        return Rule(
            name,
            Kind[entry["kind"].upper()],
            re.compile(entry["code"]),
            status=_pattern(entry.get("status")),
            text=_pattern(entry.get("text")),
            deferred="outcome" in entry,
            examples=tuple(entry["examples"]),
            advice=entry.get("advice", ""),
        )
    except (KeyError, re.error) as error:
        raise ValueError(f"replies.toml, rule {name}: {error}") from None


def _pattern(text: str | None) -> re.Pattern[str] | None:
    return None if text is None else re.compile(text, re.IGNORECASE)


RULES: Final = read_rules((files("smtp_proxy.delivery") / "replies.toml").read_text("utf-8"))
