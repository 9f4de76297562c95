"""The Runtime's two primitives, set up alike for the service and for its local testing mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backends.protocol import FloatArray
from backends.runtime.pubs import Part, Pub, placed

_SEEDS = 2**31
"""Aer takes seeds below this."""


def run_primitive(
    part: Part,
    mode: Any,
    width: int,
    wires: Callable[[Pub], Sequence[int]],
    *,
    tags: Sequence[str] = (),
    max_seconds: int | None = None,
    seed: int | None = None,
) -> Any:
    """Hand a job to the Sampler (resilience level None) or the Estimator; the Runtime's job.

    Args:
        part: What to run.
        mode: A backend, Session or Batch.
        width: Qubits of the device.
        wires: Where the wires of a PUB's circuit go on the device.
        tags: Of the job; the local mode has none.
        max_seconds: Of QPU time; the local mode ignores it.
        seed: Of the simulator, for the local mode alone.
    """
    options = part.options
    # Angles as they are: by default the local mode rounds them to 1.6e-5.
    simulator: dict[str, Any] = {"angle_decimals": 15}
    if seed is not None:
        simulator["seed_simulator"] = seed % _SEEDS
    given: dict[str, Any] = {
        "default_shots": options.shots,
        "max_execution_time": max_seconds,
        "environment": {"job_tags": list(tags)},
        "simulator": simulator,
    }
    if options.dynamical_decoupling != "off":
        given["dynamical_decoupling"] = {"enable": True, "sequence_type": options.dynamical_decoupling}
    twirling = options.in_force().twirling
    if twirling != "off":
        given["twirling"] = {
            "enable_gates": twirling in ("gates", "all"),
            "enable_measure": twirling in ("measure", "all"),
        }
    if options.resilience_level is None:
        from qiskit_ibm_runtime.executor_sampler import Sampler

        return Sampler(mode, options=given).run([_sampler_pub(pub, width, wires(pub)) for pub in part.pubs])
    from qiskit_ibm_runtime.executor_estimator import Estimator

    given["resilience_level"] = options.resilience_level
    return Estimator(mode, options=given).run([_estimator_pub(pub, width, wires(pub)) for pub in part.pubs])


def _sampler_pub(pub: Pub, width: int, wires: Sequence[int]) -> tuple[Any, ...]:
    circuit, _ = placed(pub, wires, width)
    return (circuit, _bindings(pub, pub.values)) if pub.parameters else (circuit,)


def _estimator_pub(pub: Pub, width: int, wires: Sequence[int]) -> tuple[Any, ...]:
    circuit, observables = placed(pub, wires, width)
    # (rows, 1) parameter sets against (m,) observables.
    return (circuit, observables, _bindings(pub, pub.values[:, None, :])) if pub.parameters else (circuit, observables)


def _bindings(pub: Pub, values: FloatArray) -> dict[Any, FloatArray]:
    return {tuple(parameter.name for parameter in pub.parameters): values}
