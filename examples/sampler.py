"""Bitstrings under a device's noise: the twin in the place of any other SamplerV2.

The distribution is exact, readout errors included; the shots are drawn from it with the seed given.
"""

from qiskit import QuantumCircuit
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_ibm_runtime.fake_provider import FakeKyiv

from qrun import TwinSampler

backend = FakeKyiv()
ghz = QuantumCircuit(5)
ghz.h(0)
for qubit in range(4):
    ghz.cx(qubit, qubit + 1)
ghz.measure_all()
isa = generate_preset_pass_manager(optimization_level=3, backend=backend, seed_transpiler=1).run(ghz)

for idle_noise in (False, True):
    sampler = TwinSampler(backend, idle_noise=idle_noise, seed=7)
    counts = sampler.run([isa], shots=4096).result()[0].data.meas.get_counts()
    kept = (counts["00000"] + counts["11111"]) / 4096
    print(f"all alike in {kept:.1%} of the shots, {'with' if idle_noise else 'without'} noise of waiting qubits")
