from fix_applied import applied, destroyed, edited, lifted, local_aws

__all__ = ["applied", "destroyed", "edited", "lifted", "local_aws"]
