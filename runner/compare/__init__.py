"""Runs side by side: which device, which mitigation, and whether noise matters to a model."""
