"""The Redis stream of ready work: ids only, a hint that can be rebuilt from Postgres."""
