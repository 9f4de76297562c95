"""Peers in processes of their own: keys, tasks, sums over the chain, rounds in step or not (decision 9)."""
