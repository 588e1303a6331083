"""How an answer of ours takes its place in moto: by the name of the action, which is how moto finds its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.core.responses import BaseResponse

# What moto calls an answer: a method of the service's response, that reads the request by `_get_param`.
Answer = Callable[[Any], Any]

ACCOUNT = "123456789012"
REGION = "us-east-1"


def answers(service: type[BaseResponse]) -> Callable[[Answer], Answer]:
    """The function answers the action of its name, `modify_user` ModifyUser, in place of moto's own if there is one."""

    def placed(answer: Answer) -> Answer:
        setattr(service, answer.__name__, answer)
        return answer

    return placed


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def given(request: Any, *names: str) -> dict[str, Any]:
    """Those parameters that the request has."""
    found = {name: request._get_param(name) for name in names}
    return {name: value for name, value in found.items() if value is not None}
