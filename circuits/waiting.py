"""Delays that only write down waiting which is there anyway."""

from __future__ import annotations

from dataclasses import replace

from qiskit.circuit import Delay

from circuits.types import CompiledCircuit


def without_idle_delays(compiled: CompiledCircuit) -> CompiledCircuit:
    """The circuit for an engine on which waiting costs nothing: delays go where they are idle time made explicit.

    Dynamical decoupling keeps its pulses apart by delays, which a device needs. An engine without idle noise would
    count them alone as waiting, and the same circuit without pulses as free of it. Delays of the circuit's own stay:
    they count everywhere.
    """
    if not compiled.idle_delays:
        return compiled
    circuit = compiled.circuit.copy_empty_like()
    for instruction in compiled.circuit.data:
        if not isinstance(instruction.operation, Delay):
            circuit.append(instruction)
    return replace(compiled, circuit=circuit, idle_delays=False)
