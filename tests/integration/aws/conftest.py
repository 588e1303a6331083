from fix_moto import keys, moto, reads, vault

__all__ = ["keys", "moto", "reads", "vault"]
