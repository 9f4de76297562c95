"""Devices shown: what the account has, how they rank for a circuit, and what a run takes of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from backends.live import Device
from backends.runtime.rank import Ranked
from runner.bar import Bar
from runner.estimate import Estimate, Share
from runner.tables import emit, show_table, table_of

NAMES = {"total": "all"}


class Ranking(Bar):
    """Progress on stderr while devices are ranked: a bar in a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        super().__init__("ranking")

    def step(self, name: str, done: int, total: int) -> None:
        """So many devices are done; the next is `name`."""
        self.progress.update(self.task, completed=done, total=total, description=name or "ranking")


def show_devices(devices: Sequence[Device]) -> None:
    """The account's devices, on stdout."""
    rows = [[d.name, str(d.qubits), d.status, "-" if d.queue is None else str(d.queue)] for d in devices]
    show_table("Devices of the account", ["name", "qubits", "status", "jobs that wait"], rows)


def show_ranking(what: str, ranked: Sequence[Ranked]) -> None:
    """Devices in order, and why the first is first.

    Args:
        what: Names the circuit.
        ranked: At least one.
    """
    queues = any(device.queue is not None for device in ranked)
    columns = ["device", "est. fidelity", "2q gates", "depth", "a shot", *(["queue"] if queues else []), "calibrated"]
    table = table_of(f"Devices for {what}", [*columns, "why"], numeric=range(1, len(columns) - 1))
    fit = [device for device in ranked if device.fidelity is not None]
    for device in fit:
        figures = [
            "-" if device.fidelity is None else f"{device.fidelity:.4f}",
            "-" if device.two_qubit_gates is None else str(device.two_qubit_gates),
            "-" if device.depth is None else str(device.depth),
            "-" if device.shot_seconds is None else f"{device.shot_seconds * 1e6:.0f} us",
            *([] if not queues else ["-" if device.queue is None else str(device.queue)]),
            (device.calibration_date or "-")[:10],
        ]
        table.add_row(*(Text(cell) for cell in [device.name, *figures, device.reason]))
    parts: list[RenderableType] = [table] if fit else []
    if len(fit) < len(ranked):
        parts.append(Text("\n".join(f"{d.name} is left out: {d.reason}" for d in ranked if d.fidelity is None) + "\n"))
    parts.append(Text(f"{fit[0].name}: {fit[0].reason}" if fit else "No device can run it."))
    emit(*parts)


def show_estimate(what: str, estimates: Sequence[tuple[Estimate, Share]], shot_seconds: float) -> None:
    """What a run takes, a table for each way to run it.

    Args:
        what: Names the run.
        estimates: With the share of the plan.
        shot_seconds: Of one shot, for the reader's own sums.
    """
    parts: list[RenderableType] = []
    for found, share in estimates:
        table = table_of(
            f"{what}: {found.backend}, {found.way}",
            ["part", "jobs", "circuits", f"shots, {found.shots} each", "QPU time"],
            numeric=range(1, 5),
        )
        # What the other way of running has, and this one has not, would only raise questions.
        for stage in (*(stage for stage in found.stages if stage.jobs), found.total):
            counts = [f"{number:,}" for number in (stage.jobs, stage.circuits, stage.shots)]
            cells = [NAMES.get(stage.name, stage.name), *counts, duration(stage.qpu_seconds)]
            table.add_row(*(Text(cell) for cell in cells))
        parts += [table, Text(f"{_of_mitigation(found)}{_part(share)} {share.of}.\n")]
    parts.append(
        Text(
            f"A shot takes {shot_seconds * 1e6:.1f} us (repetition delay and circuit), a job 2 s more. An estimate, by "
            "IBM's own formula; a session is also charged while it waits between its jobs."
        )
    )
    emit(*parts)


def _of_mitigation(found: Estimate) -> str:
    if found.mitigation is None:
        return ""
    by = ", ".join(f"{number:.3g} at {purpose}" for purpose, number in found.overhead.items())
    return f"With mitigation {found.mitigation}; circuits for each unmitigated one: {by or 'none'}.\n"


def duration(seconds: float) -> str:
    """Seconds up to two minutes, else minutes, else hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _part(share: Share) -> str:
    if share.share is None:
        return "More than"
    return f"{share.share:.1%} of" if share.share < 2 else f"{share.share:,.1f} times"
