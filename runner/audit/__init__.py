"""Proves a run from chain and store: every statement that can be checked is checked again, and the others are named."""
