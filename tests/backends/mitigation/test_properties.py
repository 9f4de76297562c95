"""What mitigation must not change: the values of a circuit without noise, wherever the router ends its qubits.

Every technique and some stacks, on devices with ECR, CZ and CX, with circuits whose qubits are read on other wires
than they start from. The reference is qiskit's state vector of the ansatz itself, before any compiler. What undoes the
device's own noise (pec, calibrated readout) changes nothing on a target that has none.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit.transpiler import generate_preset_pass_manager

from backends.catalog import get_target
from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.make import techniques
from backends.mitigation.stack import TECHNIQUES, parse
from backends.mitigation.types import Context, MitigationOptions
from backends.observables import single_z
from backends.protocol import FloatArray, Request
from circuits.compile import _renumber
from circuits.parts import Part
from circuits.qgan import generator
from circuits.types import Ansatz, CompiledCircuit
from tests.backends.mitigation.devices import twin

LAYOUTS = {"fake_kyiv": (0, 2, 4), "fake_torino": (0, 2, 4), "fake_lima": (0, 2, 4)}
"""Far apart, so that a ring of them is routed."""

STACKS = ("readout+zne", "ddd+twirl+zne", "twirl+lre", "readout+symmetry+zne", "readout+ddd+twirl+pec", "readout+cdr")

OBSERVABLES = (*single_z(3), SparsePauliOp.from_list([("ZZI", 0.6), ("IZZ", -0.5), ("ZIZ", 0.2), ("III", 0.1)]))


def conserving(qubits: int) -> Ansatz:
    """RZ and RXX on a ring: the parity of the bits stays even."""
    inputs, weights = ParameterVector("z", qubits), ParameterVector("w", 2 * qubits)
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.rxx(inputs[qubit], qubit, (qubit + 1) % qubits)
    for qubit in range(qubits):
        circuit.rz(weights[qubit], qubit)
    for qubit in range(qubits):
        circuit.rxx(weights[qubits + qubit], qubit, (qubit + 1) % qubits)
    return Ansatz("conserving", circuit, tuple(inputs), tuple(weights))


@cache
def routed(device: str, symmetric: bool) -> CompiledCircuit:
    backend, ansatz = get_target(device).backend, conserving(3) if symmetric else generator(3, 1, "circular")
    for seed in range(20):
        manager = generate_preset_pass_manager(
            1, backend=backend, seed_transpiler=seed, initial_layout=list(LAYOUTS[device])
        )
        everything = Part(backend.target, tuple(range(backend.target.num_qubits)))
        found = _renumber(ansatz, manager.run(ansatz.circuit), everything)
        if found.final_layout != found.initial_layout:
            return found
    raise AssertionError(f"nothing is routed on {device}")


def reference(circuit: CompiledCircuit, inputs: FloatArray, weights: FloatArray) -> FloatArray:
    rows = []
    for row in inputs:
        names = (*circuit.inputs, *circuit.weights)
        bound = circuit.ansatz.circuit.assign_parameters(dict(zip(names, (*row, *weights), strict=True)))
        state = Statevector(bound)
        rows.append([float(np.real(state.expectation_value(each))) for each in OBSERVABLES])
    return np.array(rows)


@st.composite
def options(draw: st.DrawFn, stack: tuple[str, ...]) -> MitigationOptions:
    folding = draw(st.sampled_from(["local", "global", "random"]))
    some = [(1, 3), (1, 3, 5), (3, 5), (1, 1, 3)] if folding == "local" else [(1, 3), (1, 1.7, 2.4), (1.5, 2.5, 2.5)]
    scales = st.sampled_from([*some, "auto"])
    chosen: dict[str, Any] = {
        "stack": stack,
        "folding": folding,
        "scale_factors": draw(scales),
        "extrapolation": draw(st.sampled_from(["auto", "richardson", "linear", "exponential"])),
        "ddd_rule": draw(st.sampled_from(["xx", "yy", "xyxy"])),
        "training_circuits": 8,
        "fraction_non_clifford": draw(st.sampled_from([0.1, 0.5])),
        "pec_samples": 6,
        "lre_degree": draw(st.integers(1, 2)),
        "lre_chunks": draw(st.integers(1, 3)),
        "twirl_circuits": 3,
        "readout": draw(st.sampled_from(["calibration", "circuits"])),
        "seed": draw(st.integers(0, 2**64 - 1)),
    }
    return MitigationOptions(**chosen)


@pytest.mark.parametrize("device", LAYOUTS)
@pytest.mark.parametrize("name", TECHNIQUES)
@settings(max_examples=2)
@given(data=st.data())
def test_a_technique_changes_nothing_without_noise(name: str, device: str, data: st.DataObject) -> None:
    check(parse(name), device, data)


@pytest.mark.parametrize("text", STACKS)
@settings(max_examples=3)
@given(data=st.data())
def test_a_stack_changes_nothing_without_noise(text: str, data: st.DataObject) -> None:
    check(parse(text), data.draw(st.sampled_from(list(LAYOUTS))), data)


def check(stack: tuple[str, ...], device: str, data: st.DataObject) -> None:
    chosen, random = data.draw(options(stack)), np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    circuit = routed(device, "symmetry" in stack)
    assert circuit.initial_layout != circuit.final_layout
    inputs = random.uniform(-np.pi, np.pi, (2, len(circuit.inputs)))
    weights = random.uniform(-np.pi, np.pi, len(circuit.weights))
    truth, asked = reference(circuit, inputs, weights), Request(circuit, OBSERVABLES, inputs, weights)

    # The circuits themselves: all but training circuits and sampled Paulis are the same unitary, on the same wires.
    executor = around(device, chosen)
    same = [each for each in executor.plan([asked]) if len(each.circuit.inputs) == len(circuit.inputs)]
    if "pec" in stack:
        same = same[: chosen.twirl_circuits if "twirl" in stack else 1]
    assert same
    plain = [Request(each.circuit, OBSERVABLES, each.inputs, each.weights) for each in same]
    for part, result in zip(plain, twin("ideal").run(plain), strict=True):
        assert part.circuit.final_layout == circuit.final_layout
        assert part.circuit.physical_qubits == circuit.physical_qubits
        np.testing.assert_allclose(result.values, truth, atol=1e-9)

    # What is made of their values.
    calibrated = "readout" in stack and chosen.readout == "calibration"
    if calibrated or "pec" in stack:
        executor = around("ideal", chosen)
    np.testing.assert_allclose(executor.run([asked])[0].values, truth, atol=1e-8)


def around(device: str, chosen: MitigationOptions) -> MitigatedExecutor:
    """Techniques for a device, on an engine without noise."""
    return MitigatedExecutor(twin("ideal"), techniques(Context(get_target(device), chosen, True)), "")


@pytest.mark.parametrize("device", LAYOUTS)
def test_the_reference_sees_a_wrong_layout(device: str) -> None:
    """The property above would fail if layouts were lost."""
    circuit = routed(device, False)
    random = np.random.default_rng(0)
    inputs, weights = random.uniform(-3, 3, (2, 3)), random.uniform(-3, 3, len(circuit.weights))
    lost = replace(circuit, final_layout=circuit.initial_layout)
    (found,) = twin("ideal").run([Request(lost, OBSERVABLES, inputs, weights)])
    assert np.abs(found.values - reference(circuit, inputs, weights)).max() > 1e-2
