from fix_deploy import aws, stack

__all__ = ["aws", "stack"]
