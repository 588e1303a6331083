from fix_postgres import postgres, postgres_server

__all__ = ["postgres", "postgres_server"]
