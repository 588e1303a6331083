"""Why there is no connection that could take mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtp_proxy.errors import DeliveryError

if TYPE_CHECKING:
    from smtp_proxy.delivery.reply import Reply


class NotReady(DeliveryError):
    """The next hop cannot be used at present. `reply` is what it said, if it said anything."""

    def __init__(self, message: str, reply: Reply | None = None, *, operator: bool = False) -> None:
        super().__init__(message)
        self.reply = reply
        self.operator = operator  # somebody has to change a setting
