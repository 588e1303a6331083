"""Of all tests: how long an example of a property takes is no matter, on a machine that may stand still meanwhile."""

from __future__ import annotations

import os

from hypothesis import settings

# In CI, Hypothesis has a profile of its own, which is as patient.
if "CI" not in os.environ:
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")
