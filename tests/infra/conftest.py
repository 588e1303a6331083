from fix_infra import production, switched

__all__ = ["production", "switched"]
