"""What a node's circuits took: an executor around an executor that counts what the inner one says it ran."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

import torch
from qiskit.quantum_info import SparsePauliOp

from backends.protocol import DifferentiableExecutor, Executor, Request, Result
from circuits.types import CompiledCircuit


class Meter:
    """Passes everything through to an executor, and adds up circuits, shots and QPU seconds of its results.

    An engine that samples runs one circuit a sample; an exact one runs none, and counts nothing. A result that a device
    gave in an earlier attempt counts as what it took then, so that a resumed run states what the run has taken.

    Args:
        inner: The executor that does the work.
    """

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.name = inner.name
        self.differentiable = inner.differentiable
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.circuits = 0
        self.shots = 0
        self.qpu_seconds = 0.0

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.inner.__exit__(kind, error, trace)
        finally:
            # A session is charged from its first job to its end: what it waited between its jobs is paid too.
            self.qpu_seconds += float(getattr(self.inner, "idle_seconds", 0.0))

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """As the inner executor's."""
        return self._count(self.inner.run(requests, seed=seed))

    def send(self, requests: Sequence[Request], *, seed: int | None = None) -> Any:
        """As the inner executor's, of the engine that can send without waiting: what `collect` takes."""
        return cast(Any, self.inner).send(requests, seed=seed)

    def collect(self, handle: Any) -> list[Result]:
        """Wait for what was sent."""
        return self._count(cast(Any, self.inner).collect(handle))

    def _count(self, results: list[Result]) -> list[Result]:
        for result in results:
            shots = result.metadata.get("shots")
            if shots:
                self.circuits += len(result.values)
                self.shots += int(shots) * len(result.values)
            self.qpu_seconds += float(result.metadata.get("qpu_seconds") or 0.0)
        return results

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """As the inner executor's, which is exact where it has this."""
        return cast(DifferentiableExecutor, self.inner).expectations(circuit, observables, inputs, weights)
