"""Of all tests: how long an example of a property takes is no matter, on a machine that may stand still meanwhile."""

from __future__ import annotations

import os

from hypothesis import settings

if "CI" not in os.environ:  # there Hypothesis has a profile of its own, which is as patient
    settings.register_profile("patient", deadline=None)
    settings.load_profile("patient")
