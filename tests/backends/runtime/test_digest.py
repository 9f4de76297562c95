"""The digest of a request: everything that defines a result changes it, nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.quantum_info import SparsePauliOp

from backends.observables import single_z
from backends.protocol import Request
from backends.runtime.digest import circuit_text
from backends.runtime.pubs import parts
from backends.runtime.types import JobLimits, RuntimeOptions
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.runtime.scripted import hardware, requests

TARGET, COMPILED = hardware()


def digest(
    asked: list[Request] | None = None,
    options: RuntimeOptions | None = None,
    seed: int | None = 1,
    local: bool = False,
    **target: object,
) -> str:
    asked, options = asked or requests(COMPILED), options or RuntimeOptions()
    where = replace(TARGET, **target)  # type: ignore[arg-type]
    (part,) = parts(asked, where, options, seed, local=local, limits=JobLimits())
    return part.digest


def altered(**changes: object) -> list[Request]:
    (request,) = requests(COMPILED)
    return [replace(request, **changes)]  # type: ignore[arg-type]


def test_what_defines_a_result_changes_it() -> None:
    (request,) = requests(COMPILED)
    other = replace(COMPILED, physical_qubits=tuple(q + 1 for q in COMPILED.physical_qubits))
    swapped = replace(COMPILED, final_layout=COMPILED.final_layout[::-1])
    gate = COMPILED.circuit.copy()
    gate.x(0)
    moved = request.inputs.copy()
    moved[0, 0] = np.nextafter(moved[0, 0], 9.0)
    level = RuntimeOptions(resilience_level=1)
    digests = [
        digest(),
        digest(local=True),
        digest(local=True, calibration_date="2020-01-01"),
        digest(name="ibm_other"),
        digest(seed=2),
        digest(seed=None),
        digest(altered(inputs=moved)),
        digest(altered(inputs=request.inputs[:2])),
        digest(altered(weights=request.weights + 1e-15)),
        digest(altered(circuit=other)),
        digest(altered(circuit=swapped)),
        digest(altered(circuit=replace(COMPILED, circuit=gate))),
        digest(options=RuntimeOptions(shots=1025)),
        digest(options=RuntimeOptions(dynamical_decoupling="XX")),
        digest(options=RuntimeOptions(twirling="gates")),
        digest(options=level),
        digest(altered(observables=single_z(2)[::-1]), options=level),
        digest(altered(observables=(single_z(2)[0], 2 * single_z(2)[1])), options=level),
    ]
    assert len(set(digests)) == len(digests)


def test_what_does_not_leaves_it() -> None:
    (request,) = requests(COMPILED)
    # Counts answer any observable.
    assert digest() == digest(altered(observables=single_z(2)[:1]))
    assert digest() == digest(altered(weights=np.tile(request.weights, (3, 1))))
    assert digest() == digest([*altered(inputs=request.inputs[:1]), *altered(inputs=request.inputs[1:])])
    assert digest(calibration_date="2020-01-01") == digest()
    zeros = altered(inputs=np.zeros((1, 2)))
    assert digest(zeros) == digest(altered(inputs=-np.zeros((1, 2))))


def test_names_of_parameters_do_not_count() -> None:
    def compiled(name: str) -> CompiledCircuit:
        z, w = ParameterVector(f"{name}z", 2), Parameter(f"{name}w")
        circuit = QuantumCircuit(2, global_phase=w / 2)
        circuit.rz(2 * z[0] + w - 0.5, 0)
        circuit.rz(z[1], 1)
        circuit.cx(0, 1)
        return CompiledCircuit(
            Ansatz(name, circuit, tuple(z), (w,)), circuit, tuple(z), (w,), (0, 1), (0, 1), (0, 1), 2, 1, {}
        )

    assert circuit_text(compiled("a")) == circuit_text(compiled("b"))
    assert "-0x1.0000000000000p-1+0x1.0000000000000p+1*p0+0x1.0000000000000p+0*p2" in circuit_text(compiled("a"))


def test_an_expression_that_is_not_linear() -> None:
    texts = set()
    for power in (2, 3):
        z = Parameter("z")
        circuit = QuantumCircuit(1)
        circuit.rz(z**power, 0)
        ansatz = Ansatz("power", circuit, (z,), ())
        texts.add(circuit_text(CompiledCircuit(ansatz, circuit, (z,), (), (0,), (0,), (0,), 1, 0, {})))
    assert len(texts) == 2


PROGRAM = """
from tests.backends.runtime.test_digest import digest, RuntimeOptions
print(digest(), digest(options=RuntimeOptions(resilience_level=2)))
"""


def test_it_is_the_same_in_every_process() -> None:
    environment = os.environ | {"PYTHONHASHSEED": "4242"}  # this process has another
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [digest(), digest(options=RuntimeOptions(resilience_level=2))]


def test_the_digest_stays_what_it_is() -> None:
    """Kept results are found by it: a change needs another FORMAT."""
    z = Parameter("z")
    circuit = QuantumCircuit(1)
    circuit.sx(0)
    circuit.rz(z + np.pi, 0)
    compiled = CompiledCircuit(Ansatz("one", circuit, (z,), ()), circuit, (z,), (), (3,), (0,), (0,), 2, 0, {"sx": 1})
    asked = [Request(compiled, (SparsePauliOp("Z"),), np.array([[0.25], [0.5]]), np.zeros(0))]
    assert (
        digest(asked, RuntimeOptions(), 7, name="ibm_x")
        == "178b753d8e59487e219a2323c733162305486f514bd96ef57f81a31884462f08"
    )
