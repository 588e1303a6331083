"""The smarthost's login and the sealing keys out of Secrets Manager (REQ-INFRA-ECS-010)."""

from __future__ import annotations

import json

import pytest
from fix_moto import Vault

from smtp_proxy.aws.logins import sealing_keys, with_smarthost
from smtp_proxy.config import Settings
from smtp_proxy.delivery.routing.secret import SecretReference
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.sealing import new_key_line

pytestmark = pytest.mark.integration


def test_the_smarthosts_login(vault: Vault) -> None:
    arn = vault.create(json.dumps({"username": "AKIA", "password": "first"}))
    filled = with_smarthost(Settings.load({"smarthost_secret": arn}, {}))
    assert (filled.smarthost_username, filled.smarthost_password.get_secret_value()) == ("AKIA", "first")
    named = with_smarthost(Settings.load({"smarthost_secret": f"{arn}#password", "smarthost_username": "me"}, {}))
    assert (named.smarthost_username, named.smarthost_password.get_secret_value()) == ("me", "first")
    assert with_smarthost(Settings()).smarthost_password.get_secret_value() == ""


def test_the_keys_that_seal(vault: Vault) -> None:
    keys = sealing_keys(Settings.load({"secret_key_secret": vault.create(new_key_line() + new_key_line())}, {}))
    assert keys.open(keys.seal(b"x", "here"), "here") == b"x"


def test_keys_that_are_none_are_told_without_their_text(vault: Vault) -> None:
    arn = vault.create("hush")
    with pytest.raises(ConfigurationError, match="SECRET_KEY_SECRET, line 1: write ID:BASE64") as caught:
        sealing_keys(Settings.load({"secret_key_secret": arn}, {}))
    assert "hush" not in str(caught.value)


def test_a_routes_file_names_one_and_reads_it_anew_with_the_routes(vault: Vault) -> None:
    arn = vault.create(json.dumps({"relay": "first"}))
    reference = SecretReference(aws=f"{arn}#relay")
    assert reference.read().get_secret_value() == "first"
    vault.put(arn, json.dumps({"relay": "second"}))
    assert reference.read().get_secret_value() == "second"
    with pytest.raises(ValueError, match=r"ROUTES_FILE names the secret .*: the secret is no JSON object with the key"):
        SecretReference(aws=f"{arn}#other").read()
    with pytest.raises(ValueError, match="must be the ARN or the name of a secret"):
        SecretReference(aws="p!ss")
    with pytest.raises(ValueError, match="name one place"):
        SecretReference(aws=arn, env="X")
