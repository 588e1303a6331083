"""The command line: the only room that knows all others, and wires them together.

Exit codes: 0 done; 1 it could not be done; 2 it was asked for wrongly (usage, settings); 130 interrupted.
"""

from smtp_proxy.cli.arguments import parse_address, parse_overrides
from smtp_proxy.cli.entry import DEBUG_VARIABLE, Service, app, run
from smtp_proxy.cli.messages import describe_states, parse_state

__all__ = [
    "DEBUG_VARIABLE",
    "Service",
    "app",
    "describe_states",
    "parse_address",
    "parse_overrides",
    "parse_state",
    "run",
]
