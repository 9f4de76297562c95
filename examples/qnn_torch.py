"""A quantum neural network of qiskit-machine-learning, trained in torch under a device's noise.

One argument takes it from Aer to the twin: `estimator=`. EstimatorQNN asks every estimator for a precision of 1/64,
that is 4096 shots, unless `default_precision` says otherwise; `exact=True` answers with exact values all the same.
`gradient=` makes the backward pass one walk through the circuit in place of two circuits for every parameter.

The circuit is transpiled first, and the observables are laid out with it: EstimatorQNN lays none out by itself, and its
default observable would read the device's first qubits.
"""

import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime.fake_provider import FakeKyiv
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qrun import TwinEstimator, TwinEstimatorGradient

backend = FakeKyiv()
features, ansatz = zz_feature_map(2, reps=1), real_amplitudes(2, reps=2)
circuit = QuantumCircuit(2).compose(features).compose(ansatz)
isa = generate_preset_pass_manager(optimization_level=3, backend=backend, seed_transpiler=1).run(circuit)

estimator = TwinEstimator(backend, exact=True)  # was: BackendEstimatorV2(backend=AerSimulator.from_backend(backend))
network = EstimatorQNN(
    circuit=isa,
    observables=[SparsePauliOp("ZZ").apply_layout(isa.layout)],
    input_params=features.parameters,
    weight_params=ansatz.parameters,
    estimator=estimator,
    gradient=TwinEstimatorGradient(estimator),  # leave it out, and the parameter-shift rule runs on the twin
)
model = TorchConnector(network, initial_weights=torch.linspace(-1, 1, network.num_weights).numpy())

points = torch.rand(64, 2, generator=torch.Generator().manual_seed(7)) * 2 - 1
labels = torch.sign(points[:, :1] * points[:, 1:])
optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
for step in range(21):
    optimiser.zero_grad()
    loss = torch.nn.functional.mse_loss(model(points), labels)
    loss.backward()
    optimiser.step()
    if step % 5 == 0:
        print(f"step {step:2d}  loss {loss.item():.4f}")
