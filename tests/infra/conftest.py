from fix_infra import production, stack, switched
from fix_policies import graphs, pack, switched_tree

__all__ = ["graphs", "pack", "production", "stack", "switched", "switched_tree"]
