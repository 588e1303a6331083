from fix_infra import production, stack, switched

__all__ = ["production", "stack", "switched"]
