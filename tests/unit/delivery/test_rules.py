"""What replies mean: every rule of replies.toml is found by its own examples, and none by accident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_proxy.delivery.classify import from_reply, no_reply, outcome_of, refused_here
from smtp_proxy.delivery.reply import Reply, ReplyParser
from smtp_proxy.delivery.rules import RULES, judge, read_rules, rule_for
from smtp_proxy.model.attempt import Kind, Outcome

EXAMPLES = [(rule.name, example) for rule in RULES for example in rule.examples]
REPLIES = [(name, example) for name, example in EXAMPLES if not example.startswith("000")]


def reply_of(line: str) -> Reply:
    parser = ReplyParser()
    parser.feed(f"{line}\r\n".encode())
    (reply,) = parser.replies
    return reply


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert len(REPLIES) >= 60
    assert all(rule.examples for rule in RULES)


@pytest.mark.parametrize(("name", "example"), REPLIES)
def test_an_example_finds_its_rule(name: str, example: str) -> None:
    reply = reply_of(example)
    found = rule_for(reply.code, reply.enhanced_code, reply.text)
    assert found is not None
    assert found.name == name
    result = from_reply(3, reply, "mx.example:25")
    expected = Outcome.DEFERRED if found.deferred else outcome_of(reply.code)
    assert (result.number, result.kind, result.outcome) == (3, found.kind, expected)


@pytest.mark.parametrize(("name", "example"), [pair for pair in EXAMPLES if pair[1].startswith("000")])
def test_without_a_reply_our_own_words_tell(name: str, example: str) -> None:
    found = rule_for(0, "", example[4:])
    assert found is not None
    assert found.name == name
    assert no_reply(0, example[4:], "mx.example:25").kind is found.kind


@given(st.integers(200, 599), st.from_regex(r"\A([245]\.\d{1,3}\.\d{1,3})?\Z"), st.text(max_size=600))
def test_every_reply_has_a_kind(code: int, status: str, text: str) -> None:
    outcome, kind = judge(code, status, text, outcome_of(code))
    assert kind is not Kind.UNKNOWN
    assert (outcome is Outcome.DELIVERED) == (kind is Kind.ACCEPTED) == (code < 300)
    if code < 500:
        assert outcome is outcome_of(code), "rules never refuse what the server would take later"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("550 5.7.1 user unknown, blocked using zen.spamhaus.example", Kind.BLOCK),
        ("552 mailbox full", Kind.QUOTA),
        ("452 4.2.2 x", Kind.QUOTA),
        ("550 5.1.1 spam is not delivered to this user", Kind.BLOCK),
        ("554 Transaction failed", Kind.POLICY),
    ],
)
def test_an_address_is_given_up_only_where_the_address_is_meant(line: str, kind: Kind) -> None:
    assert from_reply(0, reply_of(line), "mx.example:25").kind is kind


def test_what_we_refuse_ourselves_is_ours() -> None:
    assert refused_here(0, "5.6.7", "no", "mx.example:25").kind is Kind.LOCAL


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('name = "a"\ncode = "5.."\nkind = "hard"', "rule a: missing or unknown: examples"),
        ('name = "a"\ncode = "5.."\nkind = "harder"\nexamples = []', "rule a: 'HARDER'"),
        ('name = "a"\ncode = "(5"\nkind = "hard"\nexamples = []', "rule a: missing"),
        ('name = "a"\ncode = "5.."\nkind = "hard"\noutcome = "refused"\nexamples = []', "can only be deferred"),
    ],
)
def test_a_rule_that_is_wrong_is_named(rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_rules(f"[[rule]]\n{rule}\n")
