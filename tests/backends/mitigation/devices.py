"""What the tests of mitigation share: circuits of the three kinds of devices, and how they are run."""

from __future__ import annotations

from functools import cache

import numpy as np

from backends.catalog import get_target
from backends.engines import make_executor
from backends.mitigation.make import mitigated, techniques
from backends.mitigation.types import Asked, Context, Expansion, MitigationOptions, Technique
from backends.observables import single_z
from backends.protocol import Executor, FloatArray, Request
from circuits.compile import compile_ansatz
from circuits.qgan import generator
from circuits.types import CompiledCircuit

DEVICES = ("fake_kyiv", "fake_torino", "fake_lima")
"""ECR, CZ and CX."""


@cache
def compiled(device: str, qubits: int, reps: int = 4) -> CompiledCircuit:
    backend = None if device == "ideal" else get_target(device).backend
    return compile_ansatz(generator(qubits, reps), backend, seed=0)


def request(device: str, qubits: int, *, batch: int = 3, seed: int = 0, reps: int = 4) -> Request:
    circuit, random = compiled(device, qubits, reps), np.random.default_rng(seed)
    inputs = random.uniform(-np.pi, np.pi, (batch, qubits))
    return Request(circuit, single_z(qubits), inputs, random.uniform(-np.pi, np.pi, len(circuit.weights)))


def context(device: str, *stack: str, exact: bool = True, **options: object) -> Context:
    return Context(get_target(device), MitigationOptions(stack=stack, **options), exact)


def technique(device: str, name: str, **options: object) -> Technique:
    (found,) = techniques(context(device, name, **options))
    return found


def expand(device: str, name: str, asked: Request, **options: object) -> Expansion:
    return technique(device, name, **options).expand(
        Asked(asked.circuit, asked.observables, asked.inputs, asked.weights)
    )


@cache
def twin(device: str, shots: int | None = None) -> Executor:
    return make_executor("twin", get_target(device), precision="float64", readout_error=False, shots=shots)


def noiseless(asked: Request) -> FloatArray:
    """Values of a request on the ideal target: native gates without their errors."""
    return twin("ideal").run([asked])[0].values


def around(device: str, *stack: str, shots: int | None = None, **options: object) -> Executor:
    chosen = MitigationOptions(stack=stack, **options)
    return mitigated(twin(device, shots), get_target(device), chosen, exact=shots is None)
