"""Expectation values under a device's noise: the twin in the place of any other EstimatorV2.

The circuit is transpiled and the observables are laid out as for the device itself; then one argument says who runs
it. A precision of 0 gives exact values, one above 0 samples 1 / precision^2 shots.
"""

import numpy as np
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime.fake_provider import FakeKyiv

from qrun import TwinEstimator

backend = FakeKyiv()
circuit = efficient_su2(4, reps=2, entanglement="linear")
hamiltonian = SparsePauliOp(["ZZII", "IZZI", "IIZZ", "XIII", "IXII", "IIXI", "IIIX"], [1.0] * 3 + [0.5] * 4)

isa = generate_preset_pass_manager(optimization_level=3, backend=backend, seed_transpiler=1).run(circuit)
observable = hamiltonian.apply_layout(isa.layout)
angles = np.random.default_rng(7).uniform(-np.pi, np.pi, (5, isa.num_parameters))

estimator = TwinEstimator(backend, seed=7)  # was: BackendEstimatorV2(backend=AerSimulator.from_backend(backend))
exact = estimator.run([(isa, observable, angles)]).result()[0]
sampled = estimator.run([(isa, observable, angles)], precision=1 / 64).result()[0]

print("energy    exact  sampled")
for value, estimate, error in zip(exact.data.evs, sampled.data.evs, sampled.data.stds, strict=True):
    print(f"      {value:+9.4f}  {estimate:+.4f} +- {error:.4f}")
print(sampled.metadata["shots"], "shots;", "exact values by", exact.metadata["path"])
