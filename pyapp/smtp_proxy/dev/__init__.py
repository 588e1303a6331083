"""Everything on one machine: embedded Postgres and Valkey, supervisor, sink."""
