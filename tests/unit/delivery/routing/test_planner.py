"""Plans: recipients of one destination together, candidates by priority and weight, the same objects each time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from mail import TENANT, job

from smtp_proxy.clock import SystemClock
from smtp_proxy.delivery.mx.resolver import Resolver
from smtp_proxy.delivery.mx.sts import HttpsFetch, StsPolicies
from smtp_proxy.delivery.route import Route
from smtp_proxy.delivery.routing.file import read_routes
from smtp_proxy.delivery.routing.load import Surroundings, build
from smtp_proxy.delivery.routing.planner import RoutePlanner
from smtp_proxy.delivery.routing.watch import RoutesOfFile
from smtp_proxy.errors import CertificateProblem, ConfigurationError, StoreUnavailable
from smtp_proxy.model.attempt import Outcome

FILE = """
[routes.heavy]
hosts = [
  { host = "light.example", weight = 1 }, { host = "heavy.example", weight = 3 },
  { host = "spare.example", priority = 20 },
]
[routes.other]
hosts = ["other.example:465"]
tls = "implicit"
username = "u"
password = { env = "OTHER_PASSWORD" }
[[rules]]
domain = "a.example"
routes = ["heavy"]
[[rules]]
domain = "b.example"
routes = ["heavy"]
[[rules]]
tenant = "acme"
routes = ["other", "smarthost"]
"""


async def no_store(_: UUID) -> str:
    raise StoreUnavailable


async def acme(tenant_id: UUID) -> str:
    assert tenant_id == TENANT
    return "acme"


async def nobody(_: UUID) -> str:
    return "nobody"


def surroundings(tenant_name: object = nobody) -> Surroundings:
    clock = SystemClock()
    resolver = Resolver([("127.0.0.1", 1)])
    base = Route("smart.example", 587, "none", "proxy.example")
    return Surroundings(base, resolver, StsPolicies(resolver, HttpsFetch(), clock), "proxy.example", clock, tenant_name)  # type: ignore[arg-type]


def load(file: Path, around: Surroundings) -> RoutePlanner:
    return build(read_routes(file), around, str(file))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OTHER_PASSWORD", "secret")
    path = tmp_path / "routes.toml"
    path.write_text(FILE)
    return path


async def planned(planner: RoutePlanner, *recipients: str) -> list[tuple[list[str], list[str]]]:
    legs = await planner.plan(job(*recipients))
    return [([r.address for r in leg.recipients], [route.host for route in leg.candidates]) for leg in legs]


async def test_recipients_with_the_same_way_share_a_leg(file: Path) -> None:
    legs = await planned(load(file, surroundings()), "1@a.example", "2@c.example", "3@B.EXAMPLE", "4@a.example")
    assert [sorted(addresses) for addresses, _ in legs] == [
        ["1@a.example", "3@B.EXAMPLE", "4@a.example"],
        ["2@c.example"],
    ]
    assert legs[1][1] == ["smart.example"]


async def test_priority_first_and_weight_among_equals(file: Path) -> None:
    random.seed(5)
    planner = load(file, surroundings())
    firsts = Counter[str]()
    for _ in range(2000):
        ((_, hosts),) = await planned(planner, "1@a.example")
        assert hosts[2] == "spare.example"
        firsts[hosts[0]] += 1
    assert 1400 < firsts["heavy.example"] < 1600
    assert firsts["heavy.example"] + firsts["light.example"] == 2000


async def test_a_candidate_is_the_same_object_each_time(file: Path) -> None:
    planner = load(file, surroundings())
    seen = {route for _ in range(50) for route in (await planner.plan(job("1@a.example")))[0].candidates}
    assert len(seen) == 3
    assert {route.name for route in seen} == {"heavy"}
    assert {route.destination for route in seen} == {("heavy", f"{h}.example") for h in ("light", "heavy", "spare")}


async def test_a_rule_of_the_tenant_and_its_login(file: Path) -> None:
    (leg,) = await load(file, surroundings(acme)).plan(job("1@c.example"))
    other, smart = leg.candidates
    assert (other.host, other.port, other.tls, other.username) == ("other.example", 465, "implicit", "u")
    assert other.password is not None
    assert other.password.get_secret_value() == "secret"
    assert "secret" not in repr(other)
    assert (smart.name, smart.host, smart.password) == ("smarthost", "smart.example", None)


async def test_which_signatures_a_next_hop_is_given(tmp_path: Path) -> None:
    """SES once got two, which it takes from nobody, so no mail of a domain with keys got through."""
    path = tmp_path / "routes.toml"
    ses = 'kind = "ses"\nses = { region = "eu-central-1" }\n'
    hosts = '["a.example", "email-smtp.eu-central-1.amazonaws.com"]'
    path.write_text(
        f'[routes.ses]\n{ses}[routes.told]\n{ses}dkim = "one"\n'
        f'[routes.hosts]\nhosts = {hosts}\n[routes.hosts_told]\nhosts = {hosts}\ndkim = "all"\n'
        '[routes.none]\nhosts = ["a.example"]\ndkim = "none"\n'
    )
    around = replace(surroundings(), base=replace(surroundings().base, dkim="none"))
    planner = load(path, around)
    found = {}
    for name in ("ses", "told", "hosts", "hosts_told", "none", "smarthost"):
        way = await planner.find("x.example", None, route=name)
        found[name] = {route.host: route.dkim for route in way.candidates}
    api, smtp = "email.eu-central-1.amazonaws.com", "email-smtp.eu-central-1.amazonaws.com"
    assert found == {
        "ses": {api: "none"},
        "told": {api: "one"},
        "hosts": {"a.example": "all", smtp: "none"},
        "hosts_told": {"a.example": "all", smtp: "all"},
        "none": {"a.example": "none"},
        "smarthost": {"smart.example": "none"},
    }


async def test_an_operators_route_counts_before_all_rules(file: Path) -> None:
    planner = load(file, surroundings())
    usual = job("1@a.example", "2@a.example", "3@c.example")
    chosen = [replace(recipient, route="other") for recipient in usual.recipients[1:]]
    legs = await planner.plan(replace(usual, recipients=(usual.recipients[0], *chosen)))
    assert [([r.number for r in leg.recipients], leg.candidates[-1].host) for leg in legs] == [
        ([0], "spare.example"),
        ([1, 2], "other.example"),
    ]


async def test_mail_rerouted_to_what_the_file_has_no_more_waits(file: Path) -> None:
    one = job("1@a.example")
    gone = replace(one, recipients=(replace(one.recipients[0], route="gone"),))
    (leg,) = await load(file, surroundings()).plan(gone)
    (result,) = leg.decided
    assert (result.outcome, result.enhanced_code, leg.candidates) == (Outcome.DEFERRED, "4.3.5", ())
    assert "rerouted to gone" in result.reply_text
    assert "messages reroute --route default" in result.reply_text


async def test_mail_whose_tenant_can_not_be_asked_waits(file: Path) -> None:
    (leg,) = await load(file, surroundings(no_store)).plan(job("1@a.example", "2@c.example"))
    assert leg.candidates == ()
    assert [result.outcome for result in leg.decided] == [Outcome.DEFERRED, Outcome.DEFERRED]


async def test_a_changed_file_counts_and_a_wrong_one_does_not(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    routes = RoutesOfFile(file, surroundings())
    assert not await routes.look()
    await asyncio.to_thread(file.write_text, 'default = "one"\n[routes.one]\nhosts = ["one.example"]\n')
    assert await routes.look()
    assert (await routes.plan(job()))[0].candidates[0].host == "one.example"
    await asyncio.to_thread(file.write_text, "default = [")
    assert not await routes.look()
    assert "the routes stay as they were" in caplog.text
    assert (await routes.plan(job()))[0].candidates[0].host == "one.example"
    await asyncio.to_thread(file.unlink)
    assert not await routes.look()
    assert (await routes.plan(job()))[0].candidates[0].host == "one.example"


SECRET_FILES = """
default = "one"
[routes.one]
hosts = ["one.example"]
username = "u"
password = { file = "FOLDER/password" }
[routes.two]
hosts = ["two.example"]
username = "u"
[routes.two.oauth]
token_url = "https://tokens.example/"
client_id = "c"
client_secret = { file = "FOLDER/client" }
"""


class Watched:
    """Routes whose secrets lie beside the file, and a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, 1000.0
        self.file = self.put("routes.toml", SECRET_FILES.replace("FOLDER", str(folder)))
        self.put("password", "first")
        self.put("client", "first")
        self.routes = RoutesOfFile(self.file, replace(surroundings(), clock=self))  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def put(self, name: str, text: str) -> Path:
        (self.folder / "new").write_text(text)
        return (self.folder / "new").replace(self.folder / name)

    async def route(self) -> Route:
        return (await self.routes.plan(job()))[0].candidates[0]

    async def password(self) -> str:
        password = (await self.route()).password
        return password.get_secret_value() if password is not None else ""


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


async def test_a_secret_that_is_not_there_for_a_moment_is_waited_for(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    (watched.folder / "password").unlink()
    watched.put("routes.toml", watched.file.read_text().replace("one.example", "new.example"))
    for _ in range(5):
        assert not await watched.routes.look()
        watched.now += 30
    assert caplog.text.count("the routes stay as they were") == 1, "said once"
    assert (await watched.route()).host == "one.example"
    watched.put("password", "second")
    assert await watched.routes.look()
    assert ((await watched.route()).host, await watched.password()) == ("new.example", "second")
    assert not await watched.routes.look()


async def test_what_nothing_shows_is_tried_again_and_not_all_the_time(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.put("routes.toml", watched.file.read_text().replace(f'file = "{watched.folder}/password"', 'env = "LATE"'))
    assert not await watched.routes.look()
    monkeypatch.setenv("LATE", "there now")
    assert not await watched.routes.look(), "not at once"
    watched.now += 60
    assert await watched.routes.look()
    assert await watched.password() == "there now"


@pytest.mark.parametrize("name", ["password", "client"])
async def test_a_secret_that_is_rotated_in_its_file_counts(watched: Watched, name: str) -> None:
    before = await watched.route()
    watched.put(name, "second")
    assert await watched.routes.look()
    assert await watched.route() is not before
    assert await watched.password() == ("second" if name == "password" else "first")
    assert not await watched.routes.look()


async def test_a_login_that_is_refused_has_secrets_of_aws_read_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, asked = ["old"], []

    class Api:
        def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803 - as boto3 has it
            asked.append(SecretId)
            return {"SecretString": said[0]}

    monkeypatch.setattr("smtp_proxy.aws.secrets.client", lambda _: Api())
    monkeypatch.setattr("smtp_proxy.aws.secrets._SPACING_SECONDS", 0.0)
    monkeypatch.setattr("smtp_proxy.aws.secrets._secrets", {})
    text = watched.file.read_text().replace(f'file = "{watched.folder}/password"', 'aws = "relay#"')
    watched.put("routes.toml", text.replace('"relay#"', '"arn:aws:secretsmanager:eu-central-1:123456789012:secret:r"'))
    assert await watched.routes.look()
    assert (await watched.password(), len(asked)) == ("old", 1)
    said[0] = "new"
    assert not await watched.routes.look(), "nobody was refused, so nobody is asked"
    assert len(asked) == 1
    refused = (await watched.route()).login_refused
    assert refused is not None
    refused()
    assert await watched.routes.look()
    assert await watched.password() == "new"
    known = len(asked)
    for _ in range(5):
        refused()
        assert not await watched.routes.look()
    assert len(asked) == known, "the fleet does not ask for each message that is refused"
    watched.now += 60
    assert not await watched.routes.look()
    assert len(asked) == known + 1, "it says the same, so the connections stay"


def test_what_is_missing_beside_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER_PASSWORD")
    with pytest.raises(ConfigurationError, match=r"routes.other.password: the environment variable OTHER_PASSWORD"):
        load(file, surroundings())
    file.write_text('[routes.one]\nhosts = ["h"]\nca_file = "/no/such.pem"\n')
    with pytest.raises(CertificateProblem, match=r"routes\.one\.ca_file names /no/such\.pem"):
        load(file, surroundings())
