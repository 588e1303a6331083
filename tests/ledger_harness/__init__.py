"""A ledger of every message under faults: who sent it, who took it, and what was broken meanwhile.

    senders ──▶ ingress ──▶ Postgres, Valkey ◀── two workers ──▶ sink
       └── ledger: each 250                        arrivals: each final dot ──┘

Every arrow runs through a `proxy.Link` that can be cut. `python -m ledger_harness --help` runs it by hand
(`make soak`); `tests/e2e/test_nothing_lost.py` runs it in CI.
"""
