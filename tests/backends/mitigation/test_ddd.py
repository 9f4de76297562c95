"""Digital dynamical decoupling: windows in real time, pulses at their places, and what they refocus."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import cirq
import numpy as np
import pytest
from mitiq.ddd import rules
from qiskit import QuantumCircuit
from qiskit.circuit import Delay
from qiskit.quantum_info import Operator, SparsePauliOp

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.ddd import RULES, Ddd, sequences, windows
from backends.mitigation.tokens import with_circuit
from backends.mitigation.types import Asked, Context, MitigationOptions
from backends.protocol import Request
from backends.target import DeviceBackend, Target
from backends.twin.schedule import with_delays
from circuits.errors import UsageError
from circuits.targets import copy_target
from circuits.types import CompiledCircuit
from tests.backends.mitigation.devices import DEVICES, around, compiled, expand, noiseless, request, technique, twin


def filled(device: str, asked: Request, rule: str = "xx") -> CompiledCircuit:
    (part,) = expand(device, "ddd", asked, ddd_rule=rule).parts
    return part.circuit


def named(circuit: QuantumCircuit, wire: int) -> list[tuple[str, object]]:
    """(name, length of a delay) of the instructions on a wire, but rz."""
    return [
        (i.operation.name, i.operation.duration if isinstance(i.operation, Delay) else None)
        for i in circuit.data
        if circuit.qubits[wire] in i.qubits and i.operation.name != "rz"
    ]


def starts(circuit: CompiledCircuit, device: str, name: str) -> list[tuple[tuple[int, ...], int]]:
    """(wires, start) of all gates of a name in the schedule, in dt."""
    scheduled = with_delays(circuit, get_target(device).backend.target).circuit
    places = [tuple(scheduled.find_bit(q).index for q in i.qubits) for i in scheduled.data]
    times = scheduled.op_start_times
    return sorted((w, t) for w, t, i in zip(places, times, scheduled.data, strict=True) if i.operation.name == name)


def hand(device: str, wait: int) -> Request:
    """Two qubits, of which the first waits for `wait` pulses of the second between two of its own."""
    asked = request(device, 2, batch=1)
    circuit = QuantumCircuit(asked.circuit.circuit.num_qubits)
    entangler = next(name for name in ("ecr", "cz", "cx") if name in asked.circuit.gate_counts)
    first = next(i for i in asked.circuit.circuit.data if i.operation.name == entangler)
    a, b = (asked.circuit.circuit.find_bit(q).index for q in first.qubits)
    circuit.append(first.operation, [a, b])
    for _ in range(wait):
        circuit.sx(b)
    circuit.append(first.operation, [a, b])
    made = replace(with_circuit(asked.circuit, circuit), inputs=(), weights=())
    return replace(asked, circuit=made, inputs=np.zeros((1, 0)), weights=np.zeros(0))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("device", DEVICES)
def test_the_unitary_and_the_times_of_all_gates_stay(device: str, rule: str) -> None:
    asked = request(device, 4)
    circuit = filled(device, asked, rule)
    pulses = circuit.gate_counts["x"] - asked.circuit.gate_counts.get("x", 0)
    assert pulses > 0
    assert pulses % len(rule) == 0
    for gate in ("ecr", "cz", "cx", "sx"):
        assert starts(circuit, device, gate) == starts(asked.circuit, device, gate)
        assert circuit.gate_counts.get(gate) == asked.circuit.gate_counts.get(gate)
    np.testing.assert_allclose(noiseless(replace(asked, circuit=circuit)), noiseless(asked), atol=1e-12)


@pytest.mark.parametrize(("wait", "slices"), [(2, "XX"), (3, "IXX"), (5, "IXIXI"), (8, "IIXIIXII")])
def test_a_window_gets_what_mitiqs_rule_says(wait: int, slices: str) -> None:
    asked = hand("fake_kyiv", wait)
    circuit = filled("fake_kyiv", asked).circuit
    assert "".join(str(op.gate) for op in rules.xx(wait).all_operations()) == slices
    wire = next(w for w in range(2) if ("sx", None) not in named(circuit, w))
    expected: list[tuple[str, object]] = [("ecr", None)]
    for letter in slices:
        if letter == "X":
            expected.append(("x", None))
        elif expected[-1][0] == "delay":
            expected[-1] = ("delay", expected[-1][1] + 224)
        else:
            expected.append(("delay", 224))
    assert named(circuit, wire) == [*expected, ("ecr", None)]


def test_y_is_a_pulse_after_a_virtual_z() -> None:
    circuit = filled("fake_kyiv", hand("fake_kyiv", 2), "yy").circuit
    names = [i.operation.name for i in circuit.data if i.operation.name not in ("ecr", "sx")]
    assert names == ["rz", "x", "rz", "x"]


def test_windows_are_filled_as_if_each_were_alone() -> None:
    found = sequences([2, 5, 9], rules.xyxy)
    assert found == {2: (), 5: sequences([5], rules.xyxy)[5], 9: ((1, 1), (3, 2), (5, 1), (7, 2))}
    assert sequences([], rules.xx) == {}


def test_a_window_of_an_age_is_left() -> None:
    asked = request("fake_kyiv", 1, batch=1)
    circuit = QuantumCircuit(1)
    circuit.x(0)
    circuit.delay(10**12, 0)
    circuit.x(0)
    made = replace(with_circuit(asked.circuit, circuit), inputs=(), weights=())
    assert filled("fake_kyiv", replace(asked, circuit=made)) is made


@pytest.mark.parametrize(("wait", "rule"), [(1, "xx"), (3, "xyxy"), (0, "xx")])
def test_a_window_that_is_too_short_stays(wait: int, rule: str) -> None:
    asked = hand("fake_kyiv", wait)
    assert filled("fake_kyiv", asked, rule) is asked.circuit


def test_the_time_before_the_first_gate_is_left() -> None:
    circuit = QuantumCircuit(2)
    circuit.delay(100, 0)
    circuit.x(0)
    circuit.delay(30, 0)
    circuit.delay(20, 0)
    circuit.cx(0, 1)
    circuit.delay(0, 1)
    circuit.delay(7, 1)
    found = windows(circuit)
    assert [(window.wire, window.places, window.length) for window in found] == [(0, [2, 3], 50), (1, [6], 7)]


def test_slow_phases_are_refocused() -> None:
    """Every qubit turns about Z while it waits, by a rate that does not change: what the simulators do not have."""
    asked = request("fake_kyiv", 4)
    target = get_target("fake_kyiv").backend.target

    def drifting(circuit: CompiledCircuit) -> Request:
        scheduled, turned = with_delays(circuit, target).circuit, QuantumCircuit(4)
        for instruction in scheduled.data:
            wires = [scheduled.find_bit(qubit).index for qubit in instruction.qubits]
            if isinstance(instruction.operation, Delay):
                turned.rz(1e-4 * instruction.operation.duration, wires)
            else:
                turned.append(instruction.operation, wires)
        return replace(asked, circuit=with_circuit(circuit, turned))

    def error(circuit: CompiledCircuit) -> float:
        return float(np.abs(noiseless(drifting(circuit)) - noiseless(asked)).mean())

    assert error(filled("fake_kyiv", asked, "xx")) < 0.6 * error(asked.circuit)
    assert error(filled("fake_kyiv", asked, "xyxy")) < 0.6 * error(asked.circuit)


def test_markovian_noise_is_not() -> None:
    asked = request("fake_kyiv", 4)
    waiting = make_executor("twin", get_target("fake_kyiv"), precision="float64", readout_error=False, idle_noise=True)
    plain, with_pulses = waiting.run([asked, replace(asked, circuit=filled("fake_kyiv", asked))])
    error, with_error = (np.abs(result.values - noiseless(asked)).mean() for result in (plain, with_pulses))
    assert 0.7 * error < with_error < 1.3 * error


def test_on_the_ideal_target_nothing_is_changed() -> None:
    asked = request("ideal", 3)
    assert filled("ideal", asked) is asked.circuit
    assert technique("fake_kyiv", "ddd").circuits(asked.circuit, 7) == 7
    np.testing.assert_array_equal(around("ideal", "ddd").run([asked])[0].values, twin("ideal").run([asked])[0].values)


def test_delays_of_the_circuit_itself_stay() -> None:
    asked = hand("fake_kyiv", 4)
    circuit = QuantumCircuit(2)
    circuit.delay(300, 0)
    circuit.compose(asked.circuit.circuit, inplace=True)
    circuit.delay(500, 1)
    made = filled("fake_kyiv", replace(asked, circuit=with_circuit(asked.circuit, circuit))).circuit
    lengths = [i.operation.duration for i in made.data if isinstance(i.operation, Delay)]
    assert 300 in lengths
    assert sum(i.operation.name == "x" for i in made.data) >= 2
    assert Operator(made).equiv(Operator(circuit))


def changed(device: str, *, dt: bool = True) -> Target:
    """A copy of the device, with or without its unit of time."""
    target = copy_target(get_target(device).backend.target)
    if not dt:
        target.dt = None
    return Target.of_backend(DeviceBackend("changed", target))


def test_a_device_without_dt_waits_in_seconds() -> None:
    asked = hand("fake_torino", 9)
    target = changed("fake_torino", dt=False)
    found = Ddd(Context(target, MitigationOptions(stack=("ddd",)), True)).expand(
        Asked(asked.circuit, asked.observables, asked.inputs, asked.weights)
    )
    delays = [i.operation for i in found.parts[0].circuit.circuit.data if isinstance(i.operation, Delay)]
    assert {delay.unit for delay in delays} == {"s"}
    assert math.fsum(delay.duration for delay in delays) == pytest.approx(7 * 32e-9)


def test_a_gate_of_unknown_length_is_refused() -> None:
    asked = hand("fake_torino", 3)
    broken = changed("fake_torino")
    table = broken.backend.target
    for where in list(table["sx"]):
        table.update_instruction_properties("sx", where, _without_length(copy.copy(table["sx"][where])))
    refused = Ddd(Context(broken, MitigationOptions(stack=("ddd",)), True))
    with pytest.raises(UsageError, match="ddd needs the length of every gate, and the calibration has none for sx on"):
        refused.expand(Asked(asked.circuit, asked.observables, asked.inputs, asked.weights))


def _without_length(entry):
    entry.duration = None
    return entry


def test_unknown_rule() -> None:
    with pytest.raises(UsageError, match="unknown ddd rule 'zz'"):
        technique("fake_kyiv", "ddd", ddd_rule="zz")


def test_tokens_that_keep_a_line_busy_are_no_slack() -> None:
    """What the module builds on: Mitiq counts cirq.I and nothing else as waiting."""
    from mitiq.ddd import insert_ddd_sequences

    from backends.mitigation.tokens import Token

    line = cirq.LineQubit(0)
    busy = cirq.Circuit(cirq.Moment(Token(-1, 1).on(line)) for _ in range(6))
    assert insert_ddd_sequences(busy, rules.xx) == busy


def test_observables_go_along() -> None:
    asked = replace(request("fake_torino", 3), observables=(SparsePauliOp("XYZ"),))
    (part,) = expand("fake_torino", "ddd", asked).parts
    assert part.observables is asked.observables
    assert compiled("fake_torino", 3).final_layout == part.circuit.final_layout
