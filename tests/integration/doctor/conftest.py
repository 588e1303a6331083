from fix_ingress import authority, client_tls, make_house, password_hash, smtp_settings
from fix_postgres import db_settings, postgres, postgres_server
from fix_valkey import valkey, valkey_cluster, valkey_cluster_servers, valkey_server

__all__ = [
    "authority",
    "client_tls",
    "db_settings",
    "make_house",
    "password_hash",
    "postgres",
    "postgres_server",
    "smtp_settings",
    "valkey",
    "valkey_cluster",
    "valkey_cluster_servers",
    "valkey_server",
]
