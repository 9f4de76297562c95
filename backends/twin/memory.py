"""How much memory there is, asked before it is used."""

from __future__ import annotations

import os

import torch

from circuits.errors import QrunError

_SHARE = 0.8
"""The share of the memory that a step may ask for."""


def available(device: torch.device) -> int:
    """Bytes of the machine's memory, or of the GPU's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(needed: int, what: str, device: torch.device) -> None:
    """Refuse what does not fit.

    Args:
        needed: Bytes.
        what: What would need them, for the message.
        device: Where.

    Raises:
        QrunError: With the figure, and the machine's.
    """
    there = available(device)
    if needed > _SHARE * there:
        raise QrunError(
            f"{what} would take {needed / 2**30:.1f} GiB, and there are {there / 2**30:.1f} GiB.",
            "Take fewer qubits (the twin's memory grows 16-fold with two more), or --engine aer.",
        )
