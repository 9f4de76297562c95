"""A circuit under a device's noise as a layer of a torch model, with exact gradients for weights and inputs."""

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime.fake_provider import FakeKyiv

from qrun import TwinModule

backend, qubits = FakeKyiv(), 4
x = ParameterVector("x", qubits)
circuit = QuantumCircuit(qubits)
for qubit in range(qubits):
    circuit.ry(x[qubit], qubit)
circuit.compose(efficient_su2(qubits, reps=2, entanglement="linear"), inplace=True)
isa = generate_preset_pass_manager(optimization_level=3, backend=backend, seed_transpiler=1).run(circuit)
each_z = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits=qubits) for q in range(qubits)]

torch.manual_seed(7)
quantum = TwinModule(isa, [z.apply_layout(isa.layout) for z in each_z], backend, input_params=x, seed=7)
model = torch.nn.Sequential(torch.nn.Linear(8, qubits), quantum, torch.nn.Linear(qubits, 1))
print(quantum)

data = torch.randn(128, 8)
target = torch.tanh(data[:, :1] * data[:, 1:2])
optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
for step in range(41):
    optimiser.zero_grad()
    loss = torch.nn.functional.mse_loss(model(data), target)
    loss.backward()
    optimiser.step()
    if step % 10 == 0:
        print(f"step {step:2d}  loss {loss.item():.4f}")
