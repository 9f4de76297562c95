"""Which torch device an engine computes on."""

from __future__ import annotations

from typing import Literal

from circuits.errors import UsageError

DEVICES = ("auto", "cpu", "cuda")
LARGE = 9
"""From so many wires on "auto" takes a GPU where there is one. An estimate: below, a step is some hundreds of kernels
of a few microseconds' work each, and starting them costs as much."""


def resolve_device(wanted: str, wires: int) -> Literal["cpu", "cuda"]:
    """The device that "auto", "cpu" or "cuda" means here, for a circuit on `wires` device qubits.

    Raises:
        UsageError: An unknown name, or CUDA where torch has none.
    """
    if wanted not in DEVICES:
        raise UsageError(f"unknown device {wanted!r}.", f"Known: {', '.join(DEVICES)}.")
    if wanted == "cpu" or (wanted == "auto" and wires < LARGE):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "auto":
        return "cpu"
    why = (
        "torch was built for CUDA but finds no GPU: is its driver there (nvidia-smi)?"
        if torch.version.cuda
        else "the torch that is installed was built for the CPU alone: install a CUDA build of it (pytorch.org)."
    )
    raise UsageError("device cuda: there is no CUDA device here.", f"Take --device cpu or auto; {why}")


def device_name(device: str) -> str:
    """What a resolved device is called in a result: "cpu", or "cuda" with the GPU's name."""
    if device != "cuda":
        return device
    import torch

    return f"cuda ({torch.cuda.get_device_name()})"
