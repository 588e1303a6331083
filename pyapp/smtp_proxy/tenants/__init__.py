"""Who may log in, and how much; the same answer for SMTP and API."""

from smtp_proxy.tenants.accounts import create_credential, create_tenant, reset_password, set_networks
from smtp_proxy.tenants.logins import LoginChecker
from smtp_proxy.tenants.passwords import Passwords, generate_password

__all__ = [
    "LoginChecker",
    "Passwords",
    "create_credential",
    "create_tenant",
    "generate_password",
    "reset_password",
    "set_networks",
]
