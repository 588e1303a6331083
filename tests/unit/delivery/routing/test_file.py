"""The routes file: what it may say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtp_proxy.delivery.routing.file import read_routes
from smtp_proxy.delivery.routing.secret import SecretReference
from smtp_proxy.errors import ConfigurationError

GOOD = """
default = "relay"
[routes.relay]
hosts = ["a.example:2525", { host = "b.example", priority = 20, weight = 3 }]
tls = "required"
tls_pins = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
username = "acme"
password = { env = "RELAY_PASSWORD" }
[routes.direct]
kind = "mx"
[[rules]]
domain = "*.Bücher.example"
tenant = "acme"
routes = ["direct", "relay", "smarthost"]
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "routes.toml"
    file.write_text(text, "utf-8")
    return file


def test_a_good_one(tmp_path: Path) -> None:
    routes = read_routes(written(tmp_path, GOOD))
    first, second = routes.routes["relay"].hosts
    assert (first.host, first.port, first.priority, first.weight) == ("a.example", 2525, 10, 1)
    assert (second.host, second.port, second.priority, second.weight) == ("b.example", None, 20, 3)
    assert routes.routes["direct"].policy == "opportunistic"
    assert routes.rules[0].domain == "*.xn--bcher-kva.example"
    assert routes.default_routes == ("relay",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "is no TOML"),
        ("[routes.a]\n", "routes.a: a smarthost needs hosts"),
        ('[routes.a]\nhosts = ["h"]\ncolour = "red"\n', "routes.a.colour: Extra inputs"),
        ('[routes.a]\nhosts = ["h:99999"]\n', "routes.a.hosts.0.port"),
        ('[routes.a]\nhosts = [{ host = "h", weight = 0 }]\n', "routes.a.hosts.0.weight"),
        ('[routes.a]\nkind = "mx"\nhosts = ["h"]\n', "hosts belongs to kind = smarthost"),
        ('[routes.a]\nkind = "mx"\ntls = "verified"\n', "tls = verified needs mx_names"),
        ('[routes.a]\nkind = "mx"\ntls = "implicit"\n', "implicit is no way to speak to an MX"),
        ('[routes.a]\nhosts = ["h"]\nmta_sts = false\n', "mta_sts: for kind = mx only"),
        ('[routes.a]\nkind = "ses"\n', "table ses"),
        ('[routes.a]\nhosts = ["h"]\ntls_pins = ["abc"]\n', "is no pin"),
        ('[routes.a]\nhosts = ["h"]\nusername = "u"\n', "username needs either password"),
        ('[routes.a]\nhosts = ["h"]\npassword = { env = "P" }\n', "need a username"),
        (
            '[routes.a]\nhosts = ["h"]\ntls = "opportunistic"\nusername = "u"\npassword = { env = "P" }\n',
            "could read the password",
        ),
        ('[routes.a]\nhosts = ["h"]\nusername = "u"\npassword = { env = "P", file = "/x" }\n', "name one place"),
        ('default = "b"\n', "default names the route 'b', which is not there"),
        ('[[rules]]\nroutes = ["b"]\n', "rules.0 names the route 'b'"),
        ('[[rules]]\nroutes = ["smarthost"]\n[[rules]]\nroutes = ["smarthost"]\n', "two rules for domain *"),
        ('[[rules]]\ndomain = "a..b"\nroutes = ["smarthost"]\n', "rules.0.domain"),
        ('[routes.smarthost]\nhosts = ["h"]\n', "choose another name"),
    ],
)
def test_a_wrong_one_is_named_by_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as raised:
        read_routes(file)
    assert said in str(raised.value)
    assert str(file) in str(raised.value)


def test_an_inline_password_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = '[routes.a]\nhosts = ["h"]\nusername = "u"\npassword = "hunter2"\n'
    with pytest.raises(ConfigurationError) as raised:
        read_routes(written(tmp_path, text))
    assert "routes.a.password" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ROUTES_FILE=.*can not be read"):
        read_routes(tmp_path / "none.toml")


def test_secrets_by_file_and_by_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").write_text("from file\n")
    monkeypatch.setenv("RELAY_PASSWORD", "from variable")
    assert SecretReference(file=tmp_path / "s").read().get_secret_value() == "from file"
    assert SecretReference(env="RELAY_PASSWORD").read().get_secret_value() == "from variable"
    (tmp_path / "empty").write_text("\n")
    for reference in (
        SecretReference(file=tmp_path / "no"),
        SecretReference(env="NO_SUCH"),
        SecretReference(file=tmp_path / "empty"),
    ):
        with pytest.raises(ValueError, match=r"can not be read|is not set|is empty"):
            reference.read()
