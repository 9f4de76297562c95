"""The noise of a device's gates, from the calibration of the qubits in use.

What Aer's `NoiseModel.from_backend` has (gate and readout errors, zero temperature, no idle noise), written down
directly: the noise after a gate is a depolarising channel and then thermal relaxation of every qubit for the gate's
length, with the depolarising strength chosen so that the two together have the reported gate error e = 1 - F:

    p = d (e - e_relax) / (d F_relax - 1),   e_relax = 1 - F_relax,   d = 2^k,

capped at the largest p that is a channel, 4^k / (4^k - 1); none where relaxation alone already exceeds e.

A delay relaxes its qubit for its length, as Aer's RelaxationNoisePass does. What a calibration leaves out (a gate's
figures, T1 or T2) counts as free of errors, again as in Aer, and is warned of; a figure that can be no error rate, time
or length is refused. Only the entries of the qubits in use are read.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

from qiskit.circuit import Gate
from qiskit.transpiler import InstructionProperties
from qiskit.transpiler import Target as QiskitTarget

from backends.target import calibrated_readout
from backends.twin.pauli import Array, average_infidelity, depolarising, product, thermal_relaxation
from circuits.errors import QrunError, QrunWarning

_AVOID = "Let circuits.compile.compile_ansatz choose the qubits: it avoids such gates."
_MEND = "Correct the calibration, or choose other qubits."
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12}

Entries = Mapping[tuple[int, ...], InstructionProperties | None]


class Channels:
    """The noise channels of some physical qubits, by wire.

    Args:
        target: The device's qiskit Target; None for no noise at all.
        physical_qubits: Wire w is the device's qubit `physical_qubits[w]`.
    """

    def __init__(self, target: QiskitTarget | None, physical_qubits: Sequence[int]) -> None:
        self._target = target
        self._physical = tuple(physical_qubits)
        self._known: dict[tuple[str, tuple[int, ...]], Array | None] = {}
        self._times: dict[int, tuple[float | None, float | None]] = {}
        self._uncalibrated: dict[str, None] = {}

    def after(self, name: str, wires: tuple[int, ...]) -> Array | None:
        """The PTM of the noise that follows the gate `name` on `wires` (first wire first); None where there is none.

        Warns (QrunWarning) of a gate with an error of 1.0, which is how a calibration marks what is out of order;
        `warn_uncalibrated` does of gates without a calibration. Both are computed as Aer does.

        Raises:
            QrunError: The device has no such gate on these qubits, or not in this direction; or its calibration has
                figures that cannot be.
        """
        if self._target is None:
            return None
        key = (name, wires)
        if key not in self._known:
            self._known[key] = self._noise(self._target, name, tuple(self._physical[wire] for wire in wires))
        return self._known[key]

    def delay(self, wire: int, duration: float, unit: str = "s") -> Array | None:
        """The PTM (4, 4) of waiting on a wire; None where nothing happens.

        Args:
            wire: Which wire waits.
            duration: How long.
            unit: "s", "ms", "us", "ns", "ps", or "dt", the device's own unit.

        Raises:
            QrunError: No length of time, or in dt on a device that does not say how long that is.
        """
        if not math.isfinite(duration) or duration < 0 or unit not in (*_SECONDS, "dt"):
            raise QrunError(f"a delay of {duration} {unit} on wire {wire} is no length of time.")
        if self._target is None or not self._target.qubit_properties:
            return None
        scale = self._target.dt if unit == "dt" else _SECONDS[unit]
        if scale is None:
            raise QrunError(
                f"a delay on wire {wire} is given in dt, and the device does not say how long that is.",
                "Give the delay in seconds: circuit.delay(1e-6, qubit, unit='s').",
            )
        if not duration:
            return None
        return thermal_relaxation(duration * scale, *self._relaxation_times(self._target, self._physical[wire]))

    def readout(self, wire: int) -> tuple[float, float]:
        """(P(read 1 | prepared 0), P(read 0 | prepared 1)) of a wire.

        Raises:
            QrunError: They are no probabilities.
        """
        if self._target is None:
            return 0.0, 0.0
        qubit = self._physical[wire]
        what = f"the readout of qubit {qubit}"
        rates = calibrated_readout(self._target, qubit)
        if rates is None:
            if _differs_by_qubit(self._target):  # else it is a simulator, not a device
                self._uncalibrated[what] = None
            return 0.0, 0.0
        p01, p10 = (_rate(rate, what) for rate in rates)
        if max(p01, p10) >= 1.0:
            _warn(f"{what} has an error of 1.0: it is out of order.", "Choose another qubit.")
        return p01, p10

    def warn_uncalibrated(self) -> None:
        """Warn (QrunWarning) once of all that was asked for so far and has no calibration."""
        missing, self._uncalibrated = list(self._uncalibrated), {}
        if len(missing) == 1:
            _warn(f"{missing[0]} has no calibration: it counts as free of errors.", _AVOID)
        elif missing:
            _warn(
                f"{len(missing)} gates and readouts have no calibration, the first is {missing[0]}: they count as free "
                "of errors.",
                _AVOID,
            )

    def _noise(self, target: QiskitTarget, name: str, qubits: tuple[int, ...]) -> Array | None:
        entries = gate_entries(target, name, qubits)
        if entries is None:
            return None  # a gate that the device has everywhere, without errors
        what, properties = describe_gate(name, qubits), entries[qubits]
        if properties is None:
            self._uncalibrated[what] = None
            return None
        length, error = _length(properties.duration, what), _rate(properties.error, what)
        relaxation: Array | None = None
        if length and target.qubit_properties:
            relaxation = product([thermal_relaxation(length, *self._relaxation_times(target, q)) for q in qubits])
        depolarisation: Array | None = None
        if error and isinstance(target.operation_from_name(name), Gate):
            if error >= 1.0:
                _warn(f"{what} has an error of 1.0: the calibration marks it as out of order.", _AVOID)
            depolarisation = _depolarising_for(error, len(qubits), relaxation)
        if relaxation is None or depolarisation is None:
            return depolarisation if relaxation is None else relaxation
        return relaxation @ depolarisation

    def _relaxation_times(self, target: QiskitTarget, qubit: int) -> tuple[float | None, float | None]:
        """(T1, T2) in seconds, None where the calibration has none."""
        if qubit not in self._times:
            properties = target.qubit_properties[qubit]
            times = [getattr(properties, name, None) for name in ("t1", "t2")]
            for name, value in zip(("T1", "T2"), times, strict=True):
                if value is not None and not value > 0:  # NaN is not above zero either
                    raise QrunError(f"qubit {qubit} has {name} = {value} s in the calibration.", _MEND)
            missing = [name for name, value in zip(("T1", "T2"), times, strict=True) if value is None]
            if missing:
                _warn(
                    f"qubit {qubit} has no {' and no '.join(missing)} in the calibration: it does not decay so.", _MEND
                )
            self._times[qubit] = times[0], times[1]
        return self._times[qubit]


def gate_entries(target: QiskitTarget, name: str, qubits: tuple[int, ...]) -> Entries | None:
    """The calibration entries of a gate, with `qubits` among them; None for a gate that is the same everywhere.

    Raises:
        QrunError: The device has no such gate there; says whether it has it the other way round.
    """
    if name not in target.operation_names:
        gates = sorted(n for n in target.operation_names if isinstance(target.operation_from_name(n), Gate))
        why = f"its gates are {', '.join(gates)}"
    else:
        entries: Entries | None = target[name]
        if entries is None or None in entries:
            return None
        if qubits in entries:
            return entries
        if qubits[::-1] in entries:
            why = f"it is calibrated in the other direction only, on {', '.join(map(str, qubits[::-1]))}"
        elif len(qubits) == 1:
            why = "the calibration leaves this qubit out"
        else:
            why = "they are not coupled by it"
    raise QrunError(
        f"the device has no gate {describe_gate(name, qubits)}: {why}.",
        "Compile the circuit for this device first (circuits.compile.compile_ansatz).",
    )


def _differs_by_qubit(target: QiskitTarget) -> bool:
    """Whether some gate is calibrated, or could be, qubit by qubit."""
    gates = (target[n] for n in target.operation_names if isinstance(target.operation_from_name(n), Gate))
    return any(entries is not None and None not in entries for entries in gates)


def describe_gate(name: str, qubits: Sequence[int]) -> str:
    """For errors and warnings: "ecr on qubits 4, 5"."""
    return f"{name} on qubit{'s' if len(qubits) > 1 else ''} {', '.join(map(str, qubits))}"


def _rate(value: float | None, what: str) -> float:
    if value is None:
        return 0.0
    if not 0.0 <= value <= 1.0:
        raise QrunError(f"{what} has an error rate of {value} in the calibration, which is no probability.", _MEND)
    return float(value)


def _length(value: float | None, what: str) -> float:
    if value is None:
        return 0.0
    if not (math.isfinite(value) and value >= 0.0):
        raise QrunError(f"{what} has a length of {value} s in the calibration.", _MEND)
    return float(value)


def _warn(message: str, hint: str) -> None:
    warnings.warn(f"{message} {hint}", QrunWarning, stacklevel=4)


def _depolarising_for(error: float, qubits: int, relaxation: Array | None) -> Array | None:
    lost = 0.0 if relaxation is None else average_infidelity(relaxation)
    if error <= lost:
        return None
    dimension = 2**qubits
    error = min(error, dimension / (dimension + 1))  # beyond that no channel has it
    parameter = dimension * (error - lost) / (dimension * (1.0 - lost) - 1.0)
    return depolarising(min(parameter, 4**qubits / (4**qubits - 1)), qubits)
