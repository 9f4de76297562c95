"""The stand-in for IBM's service, and what is run on it: the QGAN's circuit on qubits of ibm_kyiv."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from qiskit import ClassicalRegister, QuantumCircuit

from backends.catalog import get_target
from backends.runtime.standin import StandIn
from backends.runtime.standin.fixture import runtime_standin
from circuits.compile import compile_ansatz
from circuits.qgan import generator
from circuits.types import CompiledCircuit

__all__ = ["runtime_standin"]


@dataclass(frozen=True)
class Sent:
    """A circuit as it is sent, on all qubits of the device, and the same on those in use.

    Attributes:
        compiled: Without measurements, on the qubits in use.
        wide: On the whole device, virtual qubit v read into bit v of the register "meas".
        narrow: The same on the qubits in use.
        values: (5, parameters), radians.
    """

    compiled: CompiledCircuit
    wide: QuantumCircuit
    narrow: QuantumCircuit
    values: npt.NDArray[np.float64]


def measured(compiled: CompiledCircuit, width: int, qubits: tuple[int, ...]) -> QuantumCircuit:
    """A compiled circuit on `width` qubits, wire w on qubit `qubits[w]`, with a measurement of every virtual qubit."""
    circuit, register = QuantumCircuit(width), ClassicalRegister(compiled.num_qubits, "meas")
    circuit.add_register(register)
    circuit.compose(compiled.circuit, qubits, inplace=True)
    for virtual, wire in enumerate(compiled.final_layout):
        circuit.measure(qubits[wire], register[virtual])
    return circuit


@pytest.fixture(scope="session")
def sent() -> Sent:
    """The QGAN's generator on four qubits of ibm_kyiv, one repetition."""
    target = get_target("fake_kyiv")
    compiled = compile_ansatz(generator(4, reps=1), target.backend, seed=0)
    width = len(compiled.physical_qubits)
    wide = measured(compiled, target.num_qubits or 0, compiled.physical_qubits)
    narrow = measured(compiled, width, tuple(range(width)))
    values = np.random.default_rng(5).normal(size=(5, wide.num_parameters))
    return Sent(compiled, wide, narrow, values)


@pytest.fixture
def connect(runtime_standin: StandIn) -> Callable[[], Any]:
    """Connects the real, unmodified client to the stand-in of the test."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    return lambda: QiskitRuntimeService(url_resolver=lambda url, *_: url)


@pytest.fixture
def service(connect: Callable[[], Any]) -> Any:
    """The real client, connected to the stand-in of the test."""
    return connect()
