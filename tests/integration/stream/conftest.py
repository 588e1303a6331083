from fix_valkey import valkey, valkey_cluster, valkey_cluster_servers, valkey_server

__all__ = ["valkey", "valkey_cluster", "valkey_cluster_servers", "valkey_server"]
