"""qiskit's EstimatorV2 on the exact noisy twin of a device."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from qiskit.primitives import BaseEstimatorV2, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.providers import BackendV2

from backends.target import Target
from backends.twin.executor import TwinExecutor
from backends.twin.primitives.prepare import Preparer, as_dtype, as_flag, as_target, support
from backends.twin.primitives.pubs import Observables, Table, Task
from circuits.errors import UsageError

_EXECUTORS = 4
"""Engines kept: one for exact values, and one for each number of shots."""
MAX_SHOTS = 2**31 - 1


class TwinEstimator(BaseEstimatorV2):
    """Expectation values of ISA circuits under a device's noise, exactly or from samples.

        estimator = TwinEstimator(FakeKyiv())
        isa = generate_preset_pass_manager(3, backend=FakeKyiv()).run(circuit)
        job = estimator.run([(isa, observable.apply_layout(isa.layout), parameter_values)])
        job.result()[0].data.evs

    PUBs broadcast as those of qiskit's estimators do. A target precision of 0 gives exact values with standard errors
    of 0; a precision above 0 samples ceil(1 / precision^2) shots from the exact joint distribution, as
    BackendEstimatorV2 would, so that values of one parameter set scatter together as on the device.

    Circuits stay parametrised and batches stay together: a PUB with many parameter sets is one call of the engine,
    and so are many exact PUBs of one circuit, such as those of a parameter-shift gradient.

    Args:
        backend: The device, any BackendV2 with a calibration in its target.
        readout_error: Whether readout errors count.
        idle_noise: Whether qubits relax while they wait.
        dtype: "float64" or "float32".
        device: Where torch computes: "cpu", "cuda" ...
        threads: Of the engine.
        default_precision: Target precision of a PUB that names none.
        exact: Answer every target precision with the exact value. EstimatorQNN asks for 1/64 unless it is told
            otherwise; exact values meet that, too.
        seed: Of the sampling; a number, or a numpy Generator. Every run draws afresh: the n-th runs of two estimators
            with one seed give the same values.

    Raises:
        UsageError: An unknown dtype, a precision that is negative, an option that is no bool, or no device.
    """

    def __init__(
        self,
        backend: BackendV2 | Target,
        *,
        readout_error: bool = True,
        idle_noise: bool = False,
        dtype: str | torch.dtype = "float64",
        device: str = "cpu",
        threads: int = 1,
        default_precision: float = 0.0,
        exact: bool = False,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.target = as_target(backend)
        self.default_precision = _checked_precision("default_precision", default_precision)
        self.exact = as_flag("exact", exact)
        self._settings: dict[str, Any] = {
            "readout_error": as_flag("readout_error", readout_error),
            "idle_noise": as_flag("idle_noise", idle_noise),
            "dtype": as_dtype(dtype),
            "device": device,
            "threads": threads,
        }
        self.preparer = Preparer(self.target)
        self._random = seeded(seed)
        self._start()
        self.executor(None)  # a setting that the engine does not take is refused here

    def _start(self) -> None:
        self.lock = threading.Lock()
        self._executors: OrderedDict[int | None, TwinExecutor] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the same options and draws on from here on its own; its engines start afresh."""
        return {name: value for name, value in vars(self).items() if name not in ("lock", "_executors")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Estimate the observables of every PUB.

        Args:
            pubs: (circuit, observables), (.., parameter values), (.., precision); circuits in the device's gates,
                observables on the device's qubits, shapes by the rules of EstimatorPub.
            precision: Target precision of PUBs that name none; `default_precision` where this is None.

        Returns:
            A job; its result has a PubResult for each PUB, with `evs` and `stds` of the PUB's shape.

        Raises:
            UsageError: A circuit that the device cannot run as it is, or a precision that is negative or would need
                2^31 shots.
            ValueError: A PUB that qiskit refuses.
        """
        wanted = self.default_precision if precision is None else _checked_precision("precision", precision)
        coerced = [EstimatorPub.coerce(pub, wanted) for pub in pubs]
        seed = int(self._random.integers(2**63))
        # Prepared here and not in the job: what is wrong is said at once, and circuits may change later.
        tasks = self._tasks(coerced)
        job: PrimitiveJob[PrimitiveResult[PubResult]] = PrimitiveJob(self._run, tasks, seed)
        job._submit()
        return job

    def executor(self, shots: int | None) -> TwinExecutor:
        """The engine for exact values (None) or for a number of shots."""
        known = self._executors.get(shots)
        if known is None:
            known = self._executors[shots] = TwinExecutor(self.target, shots=shots, **self._settings)
            if len(self._executors) > _EXECUTORS:
                oldest = next(key for key in self._executors if key is not None)
                self._executors.pop(oldest)
        return known

    def _tasks(self, pubs: list[EstimatorPub]) -> list[Task]:
        by_circuit: dict[int, list[int]] = {}
        for number, pub in enumerate(pubs):
            by_circuit.setdefault(id(pub.circuit), []).append(number)
        tasks: dict[int, Task] = {}
        for numbers in by_circuit.values():
            observables = {number: Observables(pubs[number]) for number in numbers}
            read = support({terms for own in observables.values() for terms in own.terms})
            prepared = self.preparer.prepare(pubs[numbers[0]].circuit, read)
            for number in numbers:
                pub = pubs[number]
                precision = 0.0 if pub.precision is None else float(pub.precision)
                shots = None if self.exact or precision == 0.0 else shots_for(precision)
                tasks[number] = Task(pub, precision, shots, prepared, observables[number])
        return [tasks[number] for number in range(len(pubs))]

    def _run(self, tasks: list[Task], seed: int) -> PrimitiveResult[PubResult]:
        results: list[PubResult | None] = [None] * len(tasks)
        groups: dict[tuple[int | None, int], list[int]] = {}
        for number, task in enumerate(tasks):
            # Exact values of one circuit are worked out together. Samples of two PUBs are independent.
            which = id(task.prepared) if task.shots is None else number
            groups.setdefault((task.shots, which), []).append(number)
        with self.lock:
            for (shots, _), numbers in groups.items():
                table = Table([tasks[number] for number in numbers], merge=shots is None)
                own = int(np.random.SeedSequence([seed, numbers[0]]).generate_state(1)[0])
                answers = self.executor(shots).run(table.requests, seed=own)
                table.fill(answers)
                for position, number in enumerate(numbers):
                    results[number] = tasks[number].result(*table.of(position), answers)
        return PrimitiveResult([r for r in results if r is not None], metadata={"version": 2})


def _checked_precision(name: str, precision: object) -> float:
    known = isinstance(precision, int | float | np.integer | np.floating) and not isinstance(precision, bool)
    if not known or not 0.0 <= precision < math.inf:  # type: ignore[operator]
        raise UsageError(f"{name} must be 0 (exact) or more, not {precision!r}.")
    return float(precision)  # type: ignore[arg-type]


def shots_for(precision: float) -> int:
    """ceil(1 / precision^2), as BackendEstimatorV2 has it.

    Raises:
        UsageError: 2^31 shots or more.
    """
    shots = math.ceil(1.0 / precision**2) if precision > 1e-150 else MAX_SHOTS + 1
    if shots > MAX_SHOTS:
        raise UsageError(
            f"a target precision of {precision:g} would take {1.0 / precision / precision:.1e} shots.",
            "Take precision 0 for exact values.",
        )
    return shots


def seeded(seed: int | np.random.Generator | None) -> np.random.Generator:
    """A generator from a seed.

    Raises:
        UsageError: A negative number, or no number at all.
    """
    if seed is None or isinstance(seed, np.random.Generator):
        return np.random.default_rng(seed)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"the seed must be a whole number, 0 or more, or a numpy Generator, not {seed!r}.")
    return np.random.default_rng(int(seed))
