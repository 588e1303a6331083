"""Whether a deployment is as it must be, seen from where it runs, by looking alone.

`run` is loaded by who examines: it knows Redis, DNS and all the rest, which a command line that starts has no use for.
"""

from smtp_proxy.doctor.finding import Finding, Level
from smtp_proxy.doctor.surroundings import CHECK_NAMES, Surroundings

__all__ = ["CHECK_NAMES", "Finding", "Level", "Surroundings"]
