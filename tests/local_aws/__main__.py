"""`python -m local_aws -H HOST -p PORT`: moto's server, with what it lacks for the stack."""

from __future__ import annotations

import os
import sys

# Policies of AWS itself, which roles are given: moto has them where this is set before it is imported.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")

from local_aws import budgets, codedeploy, ec2, ecs, elasticache, elb, rds, scaling  # noqa: F401
from moto.server import main

main(sys.argv[1:])
