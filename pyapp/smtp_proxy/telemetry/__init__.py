"""How the services speak to their operators: logs, metrics, health, lifecycle."""
