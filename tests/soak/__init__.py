"""Peers under kills, partitions, a full disk and wrong clocks: `python -m tests.soak --help`."""
