"""The exception tree says whose fault it is, and speaks."""

from __future__ import annotations

import pytest

from smtp_proxy import errors


def tree(root: type[errors.SmtpProxyError] = errors.SmtpProxyError) -> list[type[errors.SmtpProxyError]]:
    return [
        root,
        *(sub for child in root.__subclasses__() if child.__module__ == root.__module__ for sub in tree(child)),
    ]


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_each_has_a_message_a_fault_and_a_line_in_the_drawing(kind: type[errors.SmtpProxyError]) -> None:
    assert len(str(kind())) > 10
    assert str(kind("said")) == "said"
    assert kind.fault in ("client", "remote", "operator", "us")
    assert kind.__name__ in (errors.__doc__ or "")
