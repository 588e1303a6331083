from fix_postgres import db_settings, postgres, postgres_server
from fix_valkey import valkey, valkey_server

__all__ = ["db_settings", "postgres", "postgres_server", "valkey", "valkey_server"]
