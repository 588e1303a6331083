"""What each policy of pulumi/policy finds: done to the real graph by `tests/infra/test_policy_breaches.py`."""

from policy_breaches import access, network, storage, tasks, watch
from policy_breaches.between import BETWEEN
from policy_breaches.breach import Breach

BREACHES = [*storage.BREACHES, *access.BREACHES, *network.BREACHES, *tasks.BREACHES, *watch.BREACHES]

__all__ = ["BETWEEN", "BREACHES", "Breach"]
