from fix_worker import house

__all__ = ["house"]
