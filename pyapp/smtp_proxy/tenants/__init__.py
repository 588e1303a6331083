"""Who may log in, and how much; the same answer for SMTP and API."""

from smtp_proxy.tenants.accounts import (
    change_senders,
    create_credential,
    create_tenant,
    reset_password,
    set_networks,
    set_senders,
)
from smtp_proxy.tenants.api_keys import ApiKeyChecker, create_api_key
from smtp_proxy.tenants.logins import LoginChecker
from smtp_proxy.tenants.passwords import Passwords, generate_password

__all__ = [
    "ApiKeyChecker",
    "LoginChecker",
    "Passwords",
    "change_senders",
    "create_api_key",
    "create_credential",
    "create_tenant",
    "generate_password",
    "reset_password",
    "set_networks",
    "set_senders",
]
