"""Engines by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from circuits.errors import UsageError

if TYPE_CHECKING:
    from backends.protocol import Executor
    from backends.runtime.ledger import JobLedger
    from backends.runtime.types import RuntimeContext
    from backends.target import Target

ENGINES = ("twin", "aer", "qml", "runtime")
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
    runtime: RuntimeContext | None = None,
    ledger: JobLedger | None = None,
) -> Executor:
    """The engine of that name on a target.

    Args:
        engine: "twin" (exact, with gradients, or with shots), "aer" (samples shots), "qml" (EstimatorQNN over Aer,
            with parameter-shift gradients: the stack that users know, slow, as a reference), or "runtime" (jobs of
            IBM's Runtime: on real hardware, or in its local testing mode).
        target: From `backends.catalog.get_target`.
        shots: For aer, qml and runtime, 1024 by default; None for exact values on the twin.
        precision: "float32" or "float64", for the twin; Aer computes in double precision whatever this says.
        readout_error: Whether readout errors count.
        idle_noise: Whether qubits relax while they wait; the twin alone has it.
        device: Where the twin computes, "cpu" or "cuda"; the others take the CPU.
        threads: Python threads of the twin; its results do not depend on it.
        runtime: Options of the engine runtime, and how the service may be asked; `shots` wins over its own.
        ledger: Where the engine runtime writes its jobs down; None for one that lives as long as the process.

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
    if engine == "runtime":
        from dataclasses import replace

        from backends.runtime.executor import RuntimeExecutor
        from backends.runtime.types import RuntimeContext

        if not readout_error:
            raise UsageError(
                "the engine runtime has readout errors, as the device has.", "Leave --no-readout-error out."
            )
        context = runtime or RuntimeContext()
        if shots is not None:
            context = replace(context, options=replace(context.options, shots=shots))
        return RuntimeExecutor(target, context, ledger)
    close = difflib.get_close_matches(str(engine).lower(), ENGINES, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise UsageError(f"unknown engine {engine!r}.", f"{hint}Known: {', '.join(ENGINES)}.")
