"""Where circuits are run: one Executor protocol, one file an engine."""
