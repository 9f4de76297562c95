"""The generator of a run on a device: compiled in one way by whoever runs, estimates, attacks or audits it."""

from __future__ import annotations

from qiskit.circuit import Gate
from qiskit.providers import BackendV2

from backends.target import DeviceBackend, Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError
from circuits.targets import copy_target
from circuits.types import CompiledCircuit
from experiments.base import find
from runner.config import RunConfig
from runner.seeds import derive


def generator_for(config: RunConfig, target: Target) -> CompiledCircuit:
    """The config's generator, compiled for a target; on its best qubits, or on the best of those that are left when
    those of `config.layout` layouts are taken away.

    Raises:
        UsageError: The device has too few qubits.
        QrunError: No usable layout, or none within `model.max_depth`.
    """
    ansatz, seed = find(config.experiment).ansatz(config.model), derive(config.seed, "layout") % 2**31
    device, limit = target.layout_backend, config.model.max_depth
    compiled = compile_ansatz(ansatz, device, seed=seed, max_depth=limit)
    taken: set[int] = set()
    for number in range(1, (config.layout or 0) + 1):
        assert device is not None  # the config refuses layouts of ideal
        taken.update(compiled.physical_qubits)
        try:
            compiled = compile_ansatz(ansatz, without(device, taken), seed=seed, max_depth=limit)
        except QrunError as error:
            raise QrunError(
                f"layout {number} of {target.name}: {error.message}", f"Take a layout from 0 to {number - 1}."
            ) from None
    return compiled


def without(device: BackendV2, qubits: set[int]) -> DeviceBackend:
    """A device on which no gate touches some qubits, so that no circuit is laid out on them; numbers stay."""
    target = device.target

    def keep(name: str, where: tuple[int, ...], _: object) -> bool:
        return not qubits.intersection(where) or not isinstance(target.operation_from_name(name), Gate)

    return DeviceBackend(str(device.name), copy_target(target, keep=keep))
