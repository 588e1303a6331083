"""Whether a deployment is as it must be, seen from where it runs, by looking alone."""

from smtp_proxy.doctor.finding import Finding, Level
from smtp_proxy.doctor.run import CHECKS, examine
from smtp_proxy.doctor.surroundings import Surroundings

__all__ = ["CHECKS", "Finding", "Level", "Surroundings", "examine"]
