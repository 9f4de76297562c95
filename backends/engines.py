"""Engines by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from circuits.errors import UsageError

if TYPE_CHECKING:
    from backends.protocol import Executor
    from backends.target import Target

ENGINES = ("twin", "aer", "qml")
PRECISIONS = ("float32", "float64")
DEFAULT_SHOTS = 1024


def make_executor(
    engine: str,
    target: Target,
    *,
    shots: int | None = None,
    precision: str = "float32",
    readout_error: bool = True,
    idle_noise: bool = False,
    device: str = "cpu",
    threads: int = 1,
) -> Executor:
    """The engine of that name on a target.

    Args:
        engine: "twin" (exact, with gradients, or with shots), "aer" (samples shots), or "qml" (EstimatorQNN over Aer,
            with parameter-shift gradients: the stack that users know, slow, as a reference).
        target: From `backends.catalog.get_target`.
        shots: For aer and qml, 1024 by default; None for exact values on the twin.
        precision: "float32" or "float64", for the twin; Aer computes in double precision whatever this says.
        readout_error: Whether readout errors count.
        idle_noise: Whether qubits relax while they wait; the twin alone has it.
        device: Where the twin computes, "cpu" or "cuda"; the others take the CPU.
        threads: Python threads of the twin; its results do not depend on it.

    Raises:
        UsageError: An unknown engine or precision, or an option that the engine does not take.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}.", f"Known: {', '.join(PRECISIONS)}.")
    if engine == "twin":
        import torch

        from backends.twin.executor import TwinExecutor

        dtype = torch.float32 if precision == "float32" else torch.float64
        return TwinExecutor(
            target,
            dtype=dtype,
            readout_error=readout_error,
            idle_noise=idle_noise,
            shots=shots,
            device=device,
            threads=threads,
        )
    if engine in ENGINES and idle_noise:
        raise UsageError(f"the engine {engine} has no idle noise.", "Leave --idle-noise out, or take --engine twin.")
    if engine == "aer":
        from backends.aer import AerExecutor

        return AerExecutor(target, shots=DEFAULT_SHOTS if shots is None else shots, readout_error=readout_error)
    if engine == "qml":
        from backends.qml import QmlExecutor

        return QmlExecutor(target, shots=DEFAULT_SHOTS if shots is None else shots, readout_error=readout_error)
    close = difflib.get_close_matches(str(engine).lower(), ENGINES, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"unknown engine {engine!r}.", f"{hint}Known: {', '.join(ENGINES)}.")
