from ecs_agent import ecs
from fix_guarded import guarded, login
from fix_ingress import authority
from fix_moto import keys, moto, reads, vault
from fix_valkey import valkey, valkey_server

__all__ = [
    "authority",
    "ecs",
    "guarded",
    "keys",
    "login",
    "moto",
    "reads",
    "valkey",
    "valkey_server",
    "vault",
]
