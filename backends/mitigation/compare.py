"""What each technique makes of expectation values on one device: bias and spread against ideal, and what it costs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from backends.engines import make_executor
from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.forecast import ideal_values
from backends.mitigation.make import techniques
from backends.mitigation.resample import ResamplingExecutor
from backends.mitigation.types import Context, MitigationOptions
from backends.observables import single_z
from backends.protocol import Executor, FloatArray, Request
from backends.target import Target
from backends.twin.executor import TwinExecutor
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit

STACKS = (
    "none",
    "readout",
    "symmetry",
    "ddd",
    "twirl",
    "zne",
    "lre",
    "pec",
    "cdr",
    "readout+zne",
    "ddd+twirl+zne",
)
"""What is compared where nothing is named."""

_RANDOM = frozenset({"twirl", "pec", "cdr"})
"""Techniques whose circuits are drawn: their seed is a part of what repetitions differ by."""


@dataclass(frozen=True)
class Setup:
    """How stacks are compared on one device.

    Attributes:
        sets: Random parameter sets, inputs and weights uniform in [-pi, pi].
        draws: Of the circuits of techniques that draw them.
        repetitions: With shots: so often is everything sampled anew.
        seed: Of all of it.
        engine: "twin" or "aer"; exact values are always the twin's.
        readout_error: Whether readout errors count; without, they are set aside.
        idle_noise: Whether qubits relax while they wait (twin).
        options: Of the techniques; stack and seed in them do not count.
    """

    sets: int = 6
    draws: int = 3
    repetitions: int = 12
    seed: int = 0
    engine: str = "twin"
    readout_error: bool = True
    idle_noise: bool = False
    options: MitigationOptions = field(default_factory=MitigationOptions)

    def __post_init__(self) -> None:
        for name in ("sets", "draws", "repetitions"):
            if getattr(self, name) < 2:
                raise UsageError(f"--{name} {getattr(self, name)}: at least 2, so that there is a spread to tell.")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: 0 or more.")
        if self.engine not in ("twin", "aer"):
            raise UsageError(f"unknown engine {self.engine!r}.", "Compare on twin or aer.")
        if self.engine == "aer" and self.idle_noise:
            raise UsageError("the engine aer has no idle noise.", "Leave --idle-noise out, or take --engine twin.")


@dataclass(frozen=True)
class Row:
    """One stack at one number of shots; errors are of <Z_i>, means over qubits and parameter sets.

    Attributes:
        backend, qubits, shots, stack: What; shots a circuit, None for exact values.
        bias: Mean |mean over repetitions - ideal|; None (as all figures) where it could not be had.
        spread: Mean standard deviation over repetitions.
        reported: Mean standard error that the results state: equal to the spread where error bars are honest, but for
            twirl, whose draw it does not know, and cdr, where it also says how well a line describes the noise.
        error: Mean |value - ideal|.
        uncertainty: Its standard error over the parameter sets.
        gain: error of none / error.
        worse: Whether the error is larger than that of none, beyond twice the uncertainty of the difference.
        circuits: For each unmitigated one.
        seconds: A call of the engine for all parameter sets, once it knows the circuits.
        why_not: Why there are no figures.
    """

    backend: str
    qubits: int
    shots: int | None
    stack: str
    bias: float | None = None
    spread: float | None = None
    reported: float | None = None
    error: float | None = None
    uncertainty: float | None = None
    gain: float | None = None
    worse: bool | None = None
    circuits: float | None = None
    seconds: float | None = None
    why_not: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


class Comparison:
    """Stacks on one device and one circuit; used inside `with`, which holds the engines.

    Args:
        target: The device.
        circuit: Compiled for it.
        setup: See `Setup`.

    Raises:
        UsageError: As `make_executor`.
    """

    def __init__(self, target: Target, circuit: CompiledCircuit, setup: Setup) -> None:
        self.target, self.circuit, self.setup = target, circuit, setup
        random = np.random.default_rng([setup.seed, circuit.num_qubits])
        inputs = random.uniform(-np.pi, np.pi, (setup.sets, len(circuit.inputs)))
        weights = random.uniform(-np.pi, np.pi, (setup.sets, len(circuit.weights)))
        self.request = Request(circuit, single_z(circuit.num_qubits), inputs, weights)
        self.ideal = ideal_values(circuit, inputs, weights)

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._exact = self._open.enter_context(self._twin(None))
        self._sampled = self._open.enter_context(self._twin(2))
        self._resample = self._open.enter_context(ResamplingExecutor(self._sampled, 2))
        self._made: dict[tuple[tuple[str, ...], int, bool], MitigatedExecutor] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._made.clear()
        self._open.close()

    def rows(self, stacks: Sequence[tuple[str, ...]], shots: int | None) -> Iterator[Row]:
        """A row for each stack, at so many shots a circuit; None for exact values.

        Raises:
            QrunError: The engine does not take the circuit at all.
        """
        with ExitStack() as stack:
            real: Executor = self._exact
            repeat: Executor = self._exact
            if shots is not None and self.setup.engine == "twin":
                # One twin for all numbers of shots: what it made of a circuit holds for each.
                self._sampled.shots = shots
                real, repeat = self._sampled, self._resample.at(shots)
            elif shots is not None:
                real = stack.enter_context(
                    make_executor("aer", self.target, shots=shots, readout_error=self.setup.readout_error)
                )
                repeat = real
            none = self._errors((), real, repeat, shots)
            for names in stacks:
                yield self._row(names, real, repeat, shots, none)

    def _twin(self, shots: int | None) -> TwinExecutor:
        import torch

        dtype = torch.float64 if shots is None else torch.float32
        return TwinExecutor(
            self.target,
            dtype=dtype,
            readout_error=self.setup.readout_error,
            idle_noise=self.setup.idle_noise and self.target.backend is not None,
            shots=shots,
        )

    def _around(self, inner: Executor, names: tuple[str, ...], draw: int, exact: bool) -> Executor:
        """A stack around an engine, with the circuits that it has made before."""
        if not names:
            return inner
        known = self._made.get((names, draw, exact))
        if known is None:
            options = replace(self.setup.options, stack=names, seed=_seed(self.setup.seed, 2, draw))
            found = techniques(Context(self.target, options, exact))
            known = MitigatedExecutor(inner, found, "+".join(names))
            self._made[names, draw, exact] = known
        known.inner = inner
        return known

    def _row(self, names: tuple[str, ...], real: Executor, repeat: Executor, shots: int | None, none: _Errors) -> Row:
        stack = "+".join(names) or "none"
        row = Row(self.target.name, self.circuit.num_qubits, shots, stack)
        if "readout" in names and not self.setup.readout_error:
            return replace(row, why_not="readout errors are set aside: there is nothing that it could undo")
        try:
            found = self._errors(names, real, repeat, shots)
        except QrunError as error:
            return replace(row, why_not=error.message)
        behind = found.error - none.error
        return replace(
            row,
            bias=found.bias,
            spread=found.spread,
            reported=found.reported,
            error=float(found.error.mean()),
            uncertainty=_standard_error(found.error),
            gain=_ratio(float(none.error.mean()), float(found.error.mean())),
            worse=bool(behind.mean() > max(2.0 * _standard_error(behind), 1e-9)),
            circuits=found.circuits,
            seconds=found.seconds,
        )

    def _errors(self, names: tuple[str, ...], real: Executor, repeat: Executor, shots: int | None) -> _Errors:
        setup = self.setup
        random = bool(_RANDOM & set(names)) or (bool({"zne", "lre"} & set(names)) and setup.options.folding == "random")
        draws = setup.draws if random else 1
        repetitions = draws if shots is None else max(setup.repetitions, draws)
        exact = shots is None
        results, clocked = [], []
        for r in range(repetitions):
            around = self._around(repeat, names, r % draws, exact)
            begin = time.perf_counter()
            results += around.run([self.request], seed=_seed(setup.seed, 3, r))
            clocked.append(time.perf_counter() - begin)
        if repeat is not real or repetitions <= draws:
            # What is drawn again costs nothing, and a first call makes circuits: the engine's own time, on the second.
            for _ in range(2 if repeat is not real else 1):
                around = self._around(real, names, 0, exact)
                begin = time.perf_counter()
                around.run([self.request], seed=0)
                clocked = [time.perf_counter() - begin]
        circuits = float(setup.sets)
        if isinstance(around, MitigatedExecutor):
            circuits = float(around.circuits(self.circuit, setup.sets))
        values = np.stack([result.values for result in results])
        errors = np.stack([result.standard_errors for result in results])
        return _Errors(
            error=np.abs(values - self.ideal).mean((0, 2)),
            bias=float(np.abs(values.mean(0) - self.ideal).mean()),
            spread=float(values.std(0, ddof=1).mean()) if repetitions > 1 else 0.0,
            reported=float(errors.mean()),
            circuits=circuits / setup.sets,
            seconds=min(clocked),
        )


@dataclass(frozen=True)
class _Errors:
    """Of one stack; `error` is (sets,)."""

    error: FloatArray
    bias: float
    spread: float
    reported: float
    circuits: float
    seconds: float


def _seed(seed: int, purpose: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, purpose, number]).generate_state(1)[0])


def _standard_error(values: FloatArray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _ratio(one: float, other: float) -> float | None:
    """None where nothing is divided by nothing, as on the ideal target."""
    return one / other if other > 1e-12 else None
