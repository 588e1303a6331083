from fix_infra import production

__all__ = ["production"]
