"""Error mitigation of a circuit of one's own: a stack around any engine, with exact values, shots and gradients.

The circuit is compiled once, and all circuits that the stack needs go to the engine as one list.
"""

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from qrun import (
    Ansatz,
    ExpectationLayer,
    MitigationOptions,
    Request,
    TwinExecutor,
    compile_ansatz,
    get_target,
    mitigated,
)

qubits = 4
x = ParameterVector("x", qubits)
circuit = QuantumCircuit(qubits)
for qubit in range(qubits):
    circuit.ry(x[qubit], qubit)
circuit.compose(efficient_su2(qubits, reps=2, entanglement="linear"), inplace=True)
ansatz = Ansatz("mine", circuit, inputs=tuple(x), weights=tuple(p for p in circuit.parameters if p not in set(x)))
energy = SparsePauliOp(["ZZII", "IZZI", "IIZZ", "XIII", "IXII", "IIXI", "IIIX"], [1.0] * 3 + [0.5] * 4)

random = np.random.default_rng(7)
samples = random.uniform(-np.pi, np.pi, (16, qubits))
angles = random.uniform(-np.pi, np.pi, len(ansatz.weights))


def request(target):
    """The circuit compiled for a target, with its observable on virtual qubits and its parameters."""
    return Request(compile_ansatz(ansatz, target.backend, seed=7), (energy,), samples, angles)


ideal, device = get_target("ideal"), get_target("fake_kyiv")
with TwinExecutor(ideal) as engine:
    (true,) = engine.run([request(ideal)])

asked = request(device)
print("mean error         exact   at 32,768 shots")
for stack in ("none", "readout", "readout+zne"):
    errors = []
    for shots in (None, 32_768):
        with mitigated(TwinExecutor(device, shots=shots), device, stack, exact=shots is None) as engine:
            (found,) = engine.run([asked], seed=7)
        errors.append(np.abs(found.values - true.values).mean())
    stated = found.standard_errors.mean()
    print(f"{stack:15s}  {errors[0]:7.4f}   {errors[1]:7.4f} (stated standard error {stated:.4f})")

# Options of the techniques, and gradients through the extrapolation.
options = MitigationOptions(stack=("readout", "zne"), scale_factors=(1.0, 3.0), extrapolation="linear")
with mitigated(TwinExecutor(device), device, options, exact=True) as engine:
    layer = ExpectationLayer(engine, asked.circuit, asked.observables, gradient="exact")
    weights = torch.tensor(angles, requires_grad=True)
    layer(torch.tensor(samples), weights).mean().backward()
print(f"gradient by {len(weights)} angles, norm {weights.grad.norm():.3f}")
