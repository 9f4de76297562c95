"""Which way a circuit is evaluated: observables backwards, or a batch of density matrices forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backends.twin.heisenberg.plan import Plan
from backends.twin.program import Program
from circuits.errors import UsageError


@dataclass(frozen=True)
class Path:
    """The way, and why, in a sentence."""

    name: Literal["heisenberg", "density"]
    why: str


def choose(
    program: Program, plans: Sequence[Plan], batch: int, weight_vectors: int, *, observables: int, forced: str = "auto"
) -> Path:
    """The cheaper way by its products, for `batch` samples and so many different weight vectors among them.

    `observables` is their number, for the sentence; sums may have several plans.

    Backwards, the observables are walked once for each weight vector; forwards, every sample is. Inputs after an
    entangling gate leave only the second.

    Raises:
        UsageError: `forced` is "heisenberg", and inputs come after an entangling gate.
    """
    if not program.inputs_come_first:
        if forced == "heisenberg":
            raise UsageError(
                "the Heisenberg path takes inputs before the first entangling gate on their qubit, and this circuit "
                "has some after it.",
                "Leave the choice to the engine, or take the density path.",
            )
        return Path("density", "inputs come after an entangling gate, so that each sample is evolved by itself")
    if forced == "heisenberg":
        return Path("heisenberg", "it was asked for")
    if forced == "density":
        return Path("density", "it was asked for")
    width = len(program.first)
    backwards = weight_vectors * sum(plan.flops for plan in plans)
    forwards = batch * len(program.blocks) * 32 * 4**width
    counts = f"{observables} observables and {batch} samples with {weight_vectors} weight vectors on {width} wires"
    if forwards < backwards:
        return Path("density", f"for {counts}, evolving the samples takes {_ratio(backwards, forwards)} less")
    return Path("heisenberg", f"for {counts}, carrying the observables back takes {_ratio(forwards, backwards)} less")


def _ratio(larger: int, smaller: int) -> str:
    return f"{larger / max(1, smaller):.1f} times"
