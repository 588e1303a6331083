"""What fields of requests may be."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, model_validator

from smtp_proxy.errors import InvalidValue
from smtp_proxy.tenants.names import mailbox

# Control characters, halves of characters that are none, ends of lines and paragraphs.
_NOT_PLAIN = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Characters; a key of the database has some 2,700 bytes at most.
_KEPT_MAX = 2800


class Body(BaseModel):
    """A JSON object whose names are all known: a misspelt one would be passed over in silence."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:
        unknown = [name for name in given if name not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            raise ValueError(f"there is no {unknown[0][:40]!r}; there are {', '.join(cls.model_fields)}")
        return given


def _mailbox(text: str) -> str:
    try:
        return mailbox(text)
    except InvalidValue as error:
        raise ValueError(str(error)) from None


def _plain(text: str) -> str:
    if any(unicodedata.category(c) in _NOT_PLAIN for c in text):
        raise ValueError("no control characters and no ends of lines")
    return text


def _kept(text: str) -> str:
    if "\0" in text or any(unicodedata.category(c) == "Cs" for c in text):
        raise ValueError("nothing is kept by such a name")
    return text


Plain = Annotated[str, AfterValidator(_plain)]
# What RCPT takes.
Mailbox = Annotated[str, AfterValidator(_mailbox)]
# What may be kept, of whatever release and by whomever it was put there.
Kept = Annotated[str, Field(max_length=_KEPT_MAX), AfterValidator(_kept)]
