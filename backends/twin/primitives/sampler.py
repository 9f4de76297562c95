"""qiskit's SamplerV2 on the exact noisy twin of a device."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from qiskit.primitives import BaseSamplerV2, BitArray, DataBin, PrimitiveJob, PrimitiveResult, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike
from qiskit.providers import BackendV2

from backends.protocol import FloatArray
from backends.target import Target
from backends.twin.executor import TwinExecutor
from backends.twin.primitives.estimator import MAX_SHOTS, seeded
from backends.twin.primitives.isa import final_measurements
from backends.twin.primitives.prepare import Prepared, Preparer, as_dtype, as_flag, as_target
from circuits.errors import UsageError

BitMatrix = npt.NDArray[np.uint8]

_CHUNK = 2**24
"""Probabilities that are held at once (128 MiB)."""


class TwinSampler(BaseSamplerV2):
    """Samples of ISA circuits under a device's noise, drawn from the exact joint distribution.

        sampler = TwinSampler(FakeKyiv(), seed=1)
        isa = generate_preset_pass_manager(3, backend=FakeKyiv()).run(circuit)   # with measurements at its end
        sampler.run([(isa, parameter_values)], shots=4096).result()[0].data.meas.get_counts()

    The results have a BitArray for each classical register; registers of one circuit are sampled together. Bits that
    no measurement writes read 0. A measured qubit without a gate reads 1 as often as its readout errors say.

    Args:
        backend: The device, any BackendV2 with a calibration in its target.
        readout_error: Whether readout errors count.
        idle_noise: Whether qubits relax while they wait.
        dtype: "float64" or "float32", of the distribution.
        device: Where torch computes: "cpu", "cuda" ...
        default_shots: Shots of a PUB that names none.
        seed: A number, or a numpy Generator. Every run draws afresh: the n-th runs of two samplers with one seed give
            the same bits.

    Raises:
        UsageError: An unknown dtype, a number of shots below 1, an option that is no bool, or no device.
    """

    def __init__(
        self,
        backend: BackendV2 | Target,
        *,
        readout_error: bool = True,
        idle_noise: bool = False,
        dtype: str | torch.dtype = "float64",
        device: str = "cpu",
        default_shots: int = 1024,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.target, self.default_shots = as_target(backend), _checked_shots(default_shots)
        self.executor = TwinExecutor(
            self.target,
            readout_error=as_flag("readout_error", readout_error),
            idle_noise=as_flag("idle_noise", idle_noise),
            dtype=as_dtype(dtype),
            device=device,
        )
        self._preparer = Preparer(self.target)
        self._readout_error = bool(readout_error)
        self._random = seeded(seed)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the same options and draws on from here on its own; its engine starts afresh."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> PrimitiveJob[PrimitiveResult[SamplerPubResult]]:
        """Sample every PUB.

        Args:
            pubs: A circuit, (circuit, parameter values), or (circuit, parameter values, shots); circuits in the
                device's gates, with measurements at the end only.
            shots: Of PUBs that name none; `default_shots` where this is None.

        Returns:
            A job; its result has a SamplerPubResult for each PUB, whose data has one BitArray of the PUB's shape for
            each classical register.

        Raises:
            UsageError: A circuit that the device cannot run as it is, that measures nothing or before the end, or a
                wrong number of shots.
            ValueError: A PUB that qiskit refuses.
        """
        wanted = self.default_shots if shots is None else _checked_shots(shots)
        coerced = [SamplerPub.coerce(pub, wanted) for pub in pubs]
        seed = int(self._random.integers(2**63))
        tasks = [self._task(pub) for pub in coerced]
        job: PrimitiveJob[PrimitiveResult[SamplerPubResult]] = PrimitiveJob(self._run, tasks, seed)
        job._submit()
        return job

    def _task(self, pub: SamplerPub) -> _Task:
        circuit = pub.circuit
        bits = final_measurements(circuit)
        if not bits:
            raise UsageError(
                f"the circuit {circuit.name} measures nothing.", "Add measurements at its end: circuit.measure_all()."
            )
        _checked_shots(pub.shots)
        prepared = self._preparer.prepare(circuit)
        flips = {q: self.target.readout_errors(q)[0] if self._readout_error else 0.0 for q in bits.values()}
        values = pub.parameter_values.as_array(circuit.parameters)
        rows = values.reshape(pub.parameter_values.size, circuit.num_parameters)
        return _Task(pub, prepared, rows, bits, flips)

    def _run(self, tasks: list[_Task], seed: int) -> PrimitiveResult[SamplerPubResult]:
        results = []
        with self._lock:
            for number, task in enumerate(tasks):
                random = np.random.default_rng(np.random.SeedSequence([seed, number]))
                results.append(task.result(self.executor, random))
        return PrimitiveResult(results, metadata={"version": 2})


@dataclass(frozen=True)
class _Task:
    """A PUB, its circuit, its parameter rows, classical bit -> qubit, and P(read 1 | 0) of the measured qubits."""

    pub: SamplerPub
    prepared: Prepared
    rows: FloatArray
    bits: dict[int, int]
    flips: dict[int, float]

    def result(self, executor: TwinExecutor, random: np.random.Generator) -> SamplerPubResult:
        """Draw the PUB's shots, row after row."""
        circuit, shots, shape = self.pub.circuit, self.pub.shots, self.pub.shape
        places = {register.name: [circuit.find_bit(bit).index for bit in register] for register in circuit.cregs}
        packed = {
            name: np.zeros((len(self.rows), shots, -(-len(bits) // 8)), dtype=np.uint8) for name, bits in places.items()
        }
        chunk = max(1, _CHUNK >> len(self.prepared.wires))
        for start in range(0, len(self.rows), chunk):
            inputs, weights = self.prepared.split(self.rows[start : start + chunk])
            compiled = self.prepared.compiled
            for row, probabilities in enumerate(executor.probabilities(compiled, inputs, weights), start):
                read = self._draw(probabilities, random)
                for name, bits in places.items():
                    packed[name][row] = _pack(read[:, bits])
        data = {
            name: BitArray(packed[name].reshape(*shape, *packed[name].shape[1:]), len(bits))
            for name, bits in places.items()
        }
        metadata = {
            "shots": shots,
            "circuit_metadata": circuit.metadata,
            "engine": executor.name,
            "backend": executor.target.name,
        }
        return SamplerPubResult(DataBin(**data, shape=shape), metadata)

    def _draw(self, probabilities: FloatArray, random: np.random.Generator) -> BitMatrix:
        """(2^k,) of the wires -> (shots, classical bits)."""
        shots = self.pub.shots
        # Rounding can leave a probability a little below 0.
        ladder = np.cumsum(np.maximum(probabilities, 0.0))
        outcomes = np.searchsorted(ladder, random.random(shots) * ladder[-1], side="right")
        outcomes = np.minimum(outcomes, len(ladder) - 1)
        idle: dict[int, BitMatrix] = {}
        read = np.zeros((shots, self.pub.circuit.num_clbits), dtype=np.uint8)
        for bit, qubit in sorted(self.bits.items()):
            wire = self.prepared.wires.get(qubit)
            if wire is None:  # it has no gate, and is in |0> whatever the others do
                if qubit not in idle:
                    idle[qubit] = (random.random(shots) < self.flips[qubit]).astype(np.uint8)
                read[:, bit] = idle[qubit]
            else:
                read[:, bit] = (outcomes >> wire) & 1
        return read


def _pack(bits: BitMatrix) -> BitMatrix:
    """(..., n) bits, bit 0 first -> (..., ceil(n / 8)) bytes as BitArray has them: big-endian, padded at the front."""
    width = bits.shape[-1]
    padded = np.concatenate(
        [np.zeros((*bits.shape[:-1], -width % 8), dtype=np.uint8), bits[..., ::-1].astype(np.uint8)], axis=-1
    )
    return np.packbits(padded, axis=-1)


def _checked_shots(shots: object) -> int:
    if isinstance(shots, bool) or not isinstance(shots, int | np.integer) or not 1 <= shots <= MAX_SHOTS:
        raise UsageError(f"shots must be a whole number from 1 to {MAX_SHOTS}, not {shots!r}.")
    return int(shots)
