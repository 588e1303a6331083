from fix_shell import shell

__all__ = ["shell"]
