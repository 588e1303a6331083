"""Postgres, the truth: every accepted message, its deliveries and attempts."""

from smtp_proxy.store.leader import Leadership
from smtp_proxy.store.memory import MemoryStore
from smtp_proxy.store.store import Store

__all__ = ["Leadership", "MemoryStore", "Store"]
