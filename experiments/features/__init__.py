"""The common feature map: agreed by all nodes from masked totals, so that no record leaves its node."""
