"""What tasks are told, in their environment: settings that the application knows, and takes."""

from __future__ import annotations

import pytest
import yaml
from fix_infra import ROOT, SIDES, Side
from infra_graph.canonical import TOKEN
from infra_graph.services import containers, environment, migration

from smtp_proxy.config import Settings, environment_name

# As in test_parity.py: the first test waits for what the fixture renders.
pytestmark = pytest.mark.timeout(600)


@SIDES
def test_what_tasks_are_told_are_settings(side: str, stack: Side) -> None:
    """A name that is none would be passed over in silence, and a value that is refused would stop the task."""
    known = {environment_name(name) for name in Settings.model_fields}
    migrating = environment(migration(stack(side)))
    assert migrating.keys() <= known
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:of-AbCdEf"
    Settings.load(environ={key: arn if key.endswith("_SECRET") else value for key, value in migrating.items()})
    for name, container in containers(stack(side)).items():
        given = environment(container)
        assert given.keys() <= known, name
        # At the first apply there is neither a schema nor a key, and who ends is given up by ECS.
        assert name == "dashboard" or given["START_WAITS"] == "true", name
        said = {key: arn if key.endswith("_SECRET") else TOKEN.sub("host", value) for key, value in given.items()}
        of = Settings.load(environ=said)
        assert of.mode == "production"
        assert (of.health_port, of.metrics_service, of.metrics_emf) == (8081, name, "on")


@SIDES
def test_smtp_tasks_are_told_of_pressure_and_the_balancer(side: str, production: Side) -> None:
    """REQ-INFRA-SCALE-007: 421 above 50,000; and a PROXY header is believed from the public networks alone."""
    for name in ("submission", "submissions"):
        given = environment(containers(production(side))[name])
        assert (given["INGRESS_READY_DEPTH_HIGH"], given["INGRESS_READY_DEPTH_LOW"]) == ("50000", "40000")
        assert given["SMTP_PROXY_PROTOCOL_NETWORKS"] == "10.40.0.0/24,10.40.1.0/24,10.40.2.0/24"
        assert given["TLS_CERT_SOURCE"] == "store"


@SIDES
def test_tasks_are_told_the_sizes_that_are_reckoned_with(side: str, stack: Side) -> None:
    """REQ-INFRA-SCALE-003: the budget of connections and the plan are of stack.yaml, so tasks must be as it says."""
    of = yaml.safe_load((ROOT / "terraform/stack.yaml").read_text())["defaults"]
    services = {name: each for name, each in containers(stack(side)).items() if "max_tasks" in of[name]}
    assert len(services) >= 4
    for name, container in services.items():
        given = environment(container)
        wanted = [of[name].get(key) for key in ("smtp_max_connections", "db_pool_size")]
        assert [given.get(key) for key in ("SMTP_MAX_CONNECTIONS", "DB_POOL_SIZE")] == [
            None if each is None else str(each) for each in wanted
        ], name
        assert ("DB_POOL_SIZE" in given) == ("DB_HOST" in given), name
