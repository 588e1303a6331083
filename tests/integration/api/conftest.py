from fix_postgres import db_settings, postgres, postgres_server

__all__ = ["db_settings", "postgres", "postgres_server"]
