"""Pages about runs while they go on, on this machine alone, read-only."""
