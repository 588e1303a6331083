from fix_api import api

__all__ = ["api"]
