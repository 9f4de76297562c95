"""How much memory a step takes, estimated before it is tried."""

from __future__ import annotations

import os

from circuits.errors import QrunError

_SHARE = 0.8
"""The share of the machine's memory that a step may ask for."""


def estimate(blocks: int, observables: int, width: int, itemsize: int) -> int:
    """Bytes of one step with gradient: a copy of all observables per block, and a few to work on."""
    return (blocks + 4) * observables * 4**width * itemsize


def check_memory(blocks: int, observables: int, width: int, itemsize: int) -> None:
    """Refuse what the machine cannot hold.

    Raises:
        QrunError: With the figure, and the machine's.
    """
    needed = estimate(blocks, observables, width, itemsize)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > _SHARE * available:
        raise QrunError(
            f"a step of {observables} observables over {width} qubits would take {needed / 2**30:.1f} GiB, "
            f"and this machine has {available / 2**30:.1f} GiB.",
            "Take fewer qubits (the twin's memory grows 16-fold with two more), or --engine aer.",
        )
