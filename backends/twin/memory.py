"""How much memory there is, asked before it is used."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from circuits.errors import QrunError

_SHARE = 0.8
"""The share of the memory that a step may ask for."""


_CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says what a container may take (control groups, versions 2 and 1)."""


def available(device: torch.device) -> int:
    """Bytes of the machine's memory, or of what a container may take of it, or of the GPU's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_read(path) for path in _CONTAINER]
    return min([machine, *(limit for limit in limits if limit)])


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # There is none, or it says "max".
        return None


def fits(needed: int, device: torch.device) -> bool:
    """Whether so many bytes may be asked for."""
    return needed <= _SHARE * available(device)


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
    if not fits(needed, device):
        raise QrunError(
            f"{what} would take {needed / 2**30:.1f} GiB, and there are {there / 2**30:.1f} GiB.",
            "Take fewer qubits (memory grows 16-fold with two more) or fewer samples at once, or sample on Aer.",
        )
