from fix_valkey import valkey, valkey_server

__all__ = ["valkey", "valkey_server"]
