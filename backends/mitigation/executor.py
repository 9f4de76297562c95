"""An executor around an executor: it expands the list of requests, runs it once, and combines."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import torch
from qiskit.quantum_info import SparsePauliOp

from backends.layer import check_tensor
from backends.mitigation.tree import Node, estimate, leaves_of
from backends.mitigation.types import Asked, Expansion, Technique
from backends.observables import check_arrays, check_requests
from backends.protocol import DifferentiableExecutor, Executor, FloatArray, Request, Result
from circuits.errors import UsageError
from circuits.types import CompiledCircuit

_KEPT = 256
"""How many expansions are kept ready."""

MOST = 20_000
"""Circuits in place of one: all of them are held at once, at 50 to 500 kB each."""


@dataclass(frozen=True)
class Handle:
    """A call that was sent: how it was expanded, and the inner executor's own handle."""

    nodes: tuple[Node, ...]
    inner: Any


class MitigatedExecutor:
    """Mitigated expectation values from an executor.

    All that a call needs goes to the inner executor as one list, so that a device gets a step as one job. Values are
    not clipped and may leave [-1, 1]; standard errors are propagated to first order. Where the inner executor
    differentiates, so does this one, through the combinations.

    Args:
        inner: Runs circuits.
        techniques: Innermost first, as `stack.parse` orders them; see `make.mitigated`.
        name: Of the stack, for metadata.
    """

    def __init__(self, inner: Executor, techniques: Sequence[Technique], name: str) -> None:
        self.inner, self.techniques, self.stack = inner, tuple(techniques), name
        self.name = inner.name
        self.differentiable = inner.differentiable
        self._known: OrderedDict[tuple[int, int, int], tuple[object, object, Expansion]] = OrderedDict()
        self._counted: OrderedDict[int, CompiledCircuit] = OrderedDict()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inner.__exit__(kind, error, trace)

    @property
    def idle_seconds(self) -> float:
        """As the inner executor's."""
        return float(getattr(self.inner, "idle_seconds", 0.0))

    @property
    def unmitigated(self) -> Executor:
        """What gives the answers that nothing is mitigated of; `Request.raw` asks for one within a mitigated call."""
        return self.inner

    def circuits(self, circuit: CompiledCircuit, batch: int) -> int:
        """How many bound circuits a request of `batch` samples becomes."""
        return count(self.techniques, circuit, batch)

    def plan(self, requests: Sequence[Request]) -> list[Request]:
        """What is run in place of these, in one call; nothing is run.

        Raises:
            UsageError: As `run`.
        """
        return leaves_of(self._expand(requests))[0]

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """Mitigated values of every request, from one call of the inner executor.

        Raises:
            UsageError: A wrong shape, a value that is not finite, or a circuit that a technique cannot take.
            QrunError: As the inner executor.
        """
        start = time.perf_counter()
        nodes = self._expand(requests)
        found = self._combine(nodes, self.inner.run(leaves_of(nodes)[0], seed=seed))
        for result in found:
            result.metadata["seconds"] = time.perf_counter() - start
        return found

    def send(self, requests: Sequence[Request], *, seed: int | None = None) -> Handle:
        """Bring all requests on their way, where the inner executor can; `collect` waits for them."""
        nodes = self._expand(requests)
        return Handle(nodes, cast(Any, self.inner).send(leaves_of(nodes)[0], seed=seed))

    def collect(self, handle: Handle) -> list[Result]:
        """Wait for what was sent."""
        return self._combine(handle.nodes, cast(Any, self.inner).collect(handle.inner))

    def expectations(
        self,
        circuit: CompiledCircuit,
        observables: tuple[SparsePauliOp, ...],
        inputs: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """(batch, n_inputs), (n_weights,) -> (batch, m), mitigated, differentiable in both.

        What a technique learns from circuits of its own (cdr's fit, measured readout) counts as a constant.

        Raises:
            UsageError: As `run`.
            QrunError: As the inner executor.
        """
        for name, tensor in (("inputs", inputs), ("weights", weights)):
            check_tensor(name, tensor)
        plain = Request(circuit, observables, _numpy(inputs), _numpy(weights))
        check_arrays(circuit, plain.inputs, plain.weights)
        self._check_number(circuit)
        node = self._node(plain, len(self.techniques))
        return self._differentiate(node, inputs, weights, {})

    # -- expanding --------------------------------------------------------------------------------------------------

    def _expand(self, requests: Sequence[Request]) -> tuple[Node, ...]:
        check_requests(requests)
        for request in requests:
            if not request.raw:
                self._check_number(request.circuit)
        return tuple(self._node(request, len(self.techniques)) for request in requests)

    def _check_number(self, circuit: CompiledCircuit) -> None:
        """Refuse more circuits than memory holds, before the first of them is made.

        Raises:
            UsageError: They are more than `MOST`.
        """
        if id(circuit) in self._counted:
            return
        number = count(self.techniques, circuit, 1)
        if number > MOST:
            raise UsageError(
                f"mitigation {self.stack} makes {number:,} circuits of one, and {MOST:,} are the most that are held.",
                "Take fewer circuits in the options of [mitigation].",
            )
        self._counted[id(circuit)] = circuit
        if len(self._counted) > _KEPT:
            self._counted.popitem(last=False)

    def _node(self, request: Request, level: int, *, own: bool = False) -> Node:
        """A request after the techniques below `level`, the outermost first."""
        if level == 0 or request.raw or not len(request.inputs):
            return Node(request, own=own)
        expansion = self._expansion(request, level - 1)
        parts = []
        for part in expansion.parts:
            inputs, weights = request.inputs, request.weights
            if part.rows is not None:
                inputs, weights = part.rows.inputs, part.rows.weights
            made = Request(part.circuit, part.observables, inputs, weights)
            parts.append(self._node(made, level - 1, own=own or part.rows is not None))
        return Node(request, expansion, tuple(parts), own)

    def _expansion(self, request: Request, level: int) -> Expansion:
        """Made once for a circuit and its observables, known by their identity, unless it hangs on values."""
        technique = self.techniques[level]
        asked = Asked(request.circuit, request.observables, request.inputs, request.weights)
        if technique.by_value:
            return technique.expand(asked)
        key = (level, id(request.circuit), id(request.observables))
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known[2]
        expansion = technique.expand(asked)
        # Kept with what it was made of, so that no other object takes over the identity.
        self._known[key] = (request.circuit, request.observables, expansion)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return expansion

    # -- combining --------------------------------------------------------------------------------------------------

    def _combine(self, nodes: Sequence[Node], results: Sequence[Result]) -> list[Result]:
        places = iter(leaves_of(nodes)[1])
        found = []
        counted: set[int] = set()  # what several requests share is counted with the first of them
        for node in nodes:
            mine = [next(places) for _ in node.leaves()]
            if node.request.raw:
                found.append(results[mine[0]])
                continue
            values, errors = estimate(node, mine, results)
            each = list(dict.fromkeys(mine))
            new = [results[place] for place in each if place not in counted]
            counted.update(each)
            found.append(Result(values, errors, self._metadata([results[place] for place in each], new)))
        return found

    def _metadata(self, parts: Sequence[Result], new: Sequence[Result]) -> dict[str, Any]:
        """Of the first part, with what adds up over those that no earlier result counts (`new`)."""
        said: dict[str, Any] = dict(parts[0].metadata)
        said["mitigation"] = self.stack
        said["circuits"] = sum(len(part.values) for part in new)
        if "qpu_seconds" in said:
            said["qpu_seconds"] = sum(float(part.metadata.get("qpu_seconds") or 0.0) for part in new)
        for name in ("job_ids", "tags"):
            if name in said:
                said[name] = list(dict.fromkeys(each for part in parts for each in part.metadata.get(name) or ()))
        return said

    def _differentiate(
        self, node: Node, inputs: torch.Tensor, weights: torch.Tensor, known: dict[tuple[int, ...], FloatArray]
    ) -> torch.Tensor:
        """`known`: values of the techniques' own circuits, which are run once."""
        request = node.request
        if node.expansion is None:
            if node.own:
                if node.key not in known:
                    known[node.key] = self.inner.run([request])[0].values
                return torch.as_tensor(known[node.key], dtype=weights.dtype, device=weights.device)
            engine = cast(DifferentiableExecutor, self.inner)
            return engine.expectations(request.circuit, request.observables, inputs, weights)
        values = [self._differentiate(child, inputs, weights, known) for child in node.parts]
        return node.expansion.combine(values)


def count(techniques: Sequence[Technique], circuit: CompiledCircuit, batch: int) -> int:
    """Bound circuits that a request of `batch` samples becomes: each technique expands what the ones outside it made.

    Folded circuits and such are counted as the circuit that they are made of, since a technique's number of circuits
    does not depend on which gates stand in it.
    """
    total = batch
    for technique in reversed(techniques):
        total = technique.circuits(circuit, total)
    return total


def _numpy(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().cpu().to(torch.float64).numpy()
