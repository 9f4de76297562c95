"""Real devices: what the account of IBM's service shows of them now, and the target made of a live calibration.

A device's calibration is fetched once, as a snapshot (`backends.snapshot_file`), and everything is computed from that:
the same bytes give the same circuit, twin and estimate, today or later, with or without a network.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

from backends.runtime.errors import ServiceError
from backends.runtime.explain import LOGIN, account_available, explain
from backends.snapshots import folders
from circuits.errors import QrunError, UsageError

if TYPE_CHECKING:
    from backends.snapshot_file import Snapshot
    from backends.target import Target
    from circuits.types import Ansatz

CHOICES = ("least-busy", "best")
"""Names that stand for a device that is chosen."""

_NAME = re.compile(r"ibm_[a-z0-9_]{1,59}")


@dataclass(frozen=True)
class Device:
    """A device of the account, as it stands now.

    Attributes:
        name: "ibm_..."
        qubits: How many it has.
        operational: Whether it runs jobs.
        status: The service's word for it, "online" if all is well.
        queue: Jobs that wait; None where the service does not say.
    """

    name: str
    qubits: int
    operational: bool
    status: str
    queue: int | None


def plain_name(name: str) -> str:
    """A name in the service's own spelling: case, spaces and dashes are forgiven."""
    flat = name.strip().lower()
    return flat.replace("_", "-") if flat.replace("_", "-") in CHOICES else flat.replace("-", "_").replace(" ", "_")


def is_hardware_name(name: str) -> bool:
    """Whether a name is that of a real device (ibm_*), or has one chosen (least-busy, best)."""
    return is_concrete(name) or plain_name(name) in CHOICES


def is_concrete(name: str) -> bool:
    """Whether a name is that of one real device: ibm_*."""
    return _NAME.fullmatch(plain_name(name)) is not None


def require_account(name: str) -> None:
    """Check that there is an account to ask for a device with; asks no network.

    Raises:
        UsageError: There is none: says how to come to one, and which packaged twin there is.
    """
    if account_available():
        return
    plain = plain_name(name)
    twin = plain.replace("ibm_", "fake_", 1)
    hint = f" Or run on the noisy twin of its packaged calibration: {twin}." if twin in folders() else ""
    what = f"{plain} chooses among real devices" if plain in CHOICES else f"{plain} is a real device"
    raise UsageError(f"{what}, and no account at IBM Quantum is known here.", f"{LOGIN}{hint}")


def devices() -> list[Device]:
    """All real devices of the account, by name.

    Raises:
        ServiceError: No account, or the service cannot be asked.
    """
    from backends.runtime.account import connect

    service = connect()
    try:
        listed = service.devices()
    except Exception as error:
        raise explain(error, "the devices cannot be listed") from None
    found = {device.name: device for device in map(_device, listed) if device is not None}
    return [found[name] for name in sorted(found)]


def fetch(name: str, listed: Sequence[Device] | None = None) -> Snapshot:
    """The present configuration and calibration of a real device, asked of the service.

    Its content is canonical: what the target needs, checked, with sorted keys and dates in UTC. The same calibration
    gives the same bytes anywhere.

    Args:
        name: "ibm_..."
        listed: The account's devices, where they are known already; else they are asked for.

    Raises:
        UsageError: No account, or it has no such device.
        ServiceError: The service cannot be asked.
        QrunError: What the service says of the device is not sound.
    """
    from backends.runtime.account import connect
    from backends.snapshot_file import canonical

    wanted = plain_name(name)
    if not is_concrete(name):
        raise UsageError(
            f"{name!r} is no name of a real device.", "They begin with ibm_ (`qrun backends list --live`)."
        )
    require_account(name)
    service = connect()
    known = [device.name for device in (devices() if listed is None else listed)]
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise UsageError(f"the account has no device {wanted}.", f"{hint}It has: {', '.join(known) or 'none'}.")
    try:
        backend = service.backend(wanted)
        calibrated = backend.properties(refresh=True)
    except Exception as error:
        raise explain(error, f"{wanted} cannot be asked for its calibration") from None
    if calibrated is None:
        raise QrunError(
            f"{wanted} has no calibration at present.", "Take another device (`qrun backends list --live`)."
        )
    return canonical(backend)


def hardware_target(snapshot: Snapshot) -> Target:
    """The target of a real device, of kind "hardware", built from a snapshot of its calibration. Asks no network.

    Raises:
        QrunError: It makes no device.
    """
    from backends.snapshot_device import target_of

    return replace(target_of(snapshot, f"the calibration of {snapshot.name}"), kind="hardware")


def pick(
    name: str,
    ansatz: Ansatz,
    *,
    seed: int = 0,
    max_depth: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[str, str]:
    """The device that `least-busy` or `best` stands for now, and why, in words.

    `least-busy` is the one with the shortest queue of those that run jobs and have enough qubits; `best` has the
    shortest queue among those whose estimated fidelity of this circuit is near the best (`backends.runtime.rank`).

    Args:
        name: One of `CHOICES`; a concrete name stands for itself.
        ansatz: The circuit that is to run.
        seed: Of layout and routing, for `best`.
        max_depth: Depth that the compiled circuit may have, for `best`.
        progress: Told (device, done, of) while devices are ranked.

    Raises:
        UsageError: An unknown name, no account, or no device has enough qubits.
        ServiceError: The service cannot be asked, or no device runs jobs.
    """
    choice = plain_name(name)
    if is_concrete(name):
        return choice, f"{choice}, as named."
    if choice not in CHOICES:
        raise UsageError(f"unknown choice {name!r}.", f"Known: {', '.join(CHOICES)}.")
    require_account(name)
    needed = ansatz.circuit.num_qubits
    running = [device for device in devices() if device.operational]
    if not running:
        raise ServiceError("no device of the account runs jobs at present.", "Try again later.")
    fit = [device for device in running if device.qubits >= needed]
    if not fit:
        raise UsageError(f"no device of the account has {needed} qubits.", "Take fewer (--qubits).")
    if choice == "least-busy":
        first = min(fit, key=_queue)
        return first.name, f"{first.name}: {_waiting(first)}, the least of {len(fit)} device(s) with enough qubits."
    from backends.runtime.rank import best, rank

    targets: list[Target] = []
    for number, device in enumerate(fit):
        if progress is not None:
            progress(device.name, number, len(fit))
        targets.append(hardware_target(fetch(device.name, fit)))
    queues = {device.name: device.queue for device in fit}
    ranked = rank(ansatz, targets, queues, seed=seed, max_depth=max_depth, progress=progress)
    top = best(ranked)
    return top.name, f"{top.name}: {top.reason}."


def _queue(device: Device) -> tuple[float, str]:
    return (float("inf") if device.queue is None else device.queue), device.name


def _waiting(device: Device) -> str:
    return "its queue is not known" if device.queue is None else f"{device.queue} job(s) wait"


def _device(entry: Any) -> Device | None:
    """An entry of the service's list; None for what is no device."""
    if not isinstance(entry, dict) or entry.get("is_simulator") or entry.get("class") == "mock":
        return None
    name, qubits, queue = entry.get("name"), entry.get("qubits"), entry.get("queue_length")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not _count(qubits):
        return None
    status = entry.get("status")
    word = status.get("name") if isinstance(status, dict) else status
    shown = re.sub(r"[^\w -]", "", str(word))[:20] or "unknown"
    return Device(name, qubits, shown == "online", shown, queue if _count(queue) else None)


def _count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
