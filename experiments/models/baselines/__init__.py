"""Detectors that the QGAN is held against, one file a model: they see what it sees, and are judged as it is.

Their hyperparameters were chosen on the labelled validation part (`python -m tests.benchmarks.baseline_tuning`).
"""
