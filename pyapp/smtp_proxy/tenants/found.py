"""What a login came to, for clients wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smtp_proxy.model.tenant import Identity, Network
from smtp_proxy.tenants.networks import admits


@dataclass(frozen=True, slots=True)
class Found:
    """An identity, or False: rejected; and from where it may be used."""

    verdict: Identity | Literal[False]
    networks: tuple[Network, ...] = ()

    def at(self, address: str) -> Identity | Literal[False]:
        """The verdict for a client at this address."""
        return self.verdict if admits(self.networks, address) else False
