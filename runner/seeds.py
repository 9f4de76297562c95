"""The one place where the experiment's randomness enters: RunConfig.seed, split per purpose, node and round."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, purpose: str, *parts: int) -> int:
    """A 63-bit seed for one purpose, independent of all others: SHA-256 over (seed, purpose, parts).

    Args:
        seed: RunConfig.seed.
        purpose: What it is for, e.g. "train".
        parts: Node, round ... in an order fixed by the purpose.
    """
    text = "\x1f".join(["qrun", str(seed), purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *parts: int) -> np.random.Generator:
    """A numpy Generator for one purpose; see `derive`."""
    return np.random.default_rng(derive(seed, purpose, *parts))
