"""What a run did on a device, shown behind its final table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from runner.tables import emit, stdout, table_of

_ROWS = (
    ("twin", "twin"),
    ("same_latents", "twin, same latents"),
    ("device", "device"),
    ("recalibrated", "device, recalibrated"),
)
"""What the final model is scored with, and how that is called."""
METRICS = ("accuracy", "precision", "recall", "f1", "auroc")


def device_table(run: Mapping[str, Any], parts: Mapping[str, str]) -> Table:
    """The final model with the twin's samples and with the device's, side by side.

    Args:
        run: The result's `device_run`.
        parts: Part of the records -> its name.
    """
    where = run["backend"] if run["engine"] == "service" else f"{run['backend']}, local testing mode"
    metrics = METRICS if stdout().width >= 100 else ("accuracy", "f1", "auroc")
    table = table_of(
        f"Final aggregate on {where}: {run['samples']} samples of {run['shots']} shots",
        ["scored on", "samples of", *metrics],
        numeric=range(2, 2 + len(metrics)),
    )
    for part, name in parts.items():
        scored = run["metrics"].get(part)
        for place, (key, words) in enumerate(_ROWS):
            figures = None if scored is None else scored[key]
            if figures is not None:
                table.add_row("" if place else name, words, *(f"{figures[m]:.4f}" for m in metrics))
    return table


def agreement_line(run: Mapping[str, Any]) -> str:
    """How far the device is from its twin, in one line."""
    a = run["agreement"]
    return (
        f"differs from the exact twin by {a['mean_absolute_difference']:.4f} +- {a['standard_error']:.4f} in the mean, "
        f"{a['largest_difference']:.3f} at most; shots alone make {a['from_shots']:.4f}"
    )


def jobs_line(result: Mapping[str, Any]) -> str:
    """How many jobs there were, how they were run, and what they took."""
    jobs: Sequence[Mapping[str, Any]] = result["jobs"]
    done = sum(job["state"] == "done" for job in jobs)
    modes = sorted({f"local {job['mode']}" if job["local"] else job["mode"] for job in jobs if job["mode"]})
    failed = f", {len(jobs) - done} of them without a result" if done != len(jobs) else ""
    of = [f"{name} {seconds:.1f}" for name, seconds in result["qpu"]["by_purpose"].items() if seconds]
    idle = result["qpu"]["idle"]
    of += [f"idle sessions {idle:.1f}"] if idle else []
    told = f" ({', '.join(of)})" if of else ""
    return f"{len(jobs)}{failed}, mode {', '.join(modes)}; {result['qpu']['total']:.1f} QPU seconds{told}"


def ignored_of(result: Mapping[str, Any]) -> Sequence[str]:
    """What the local testing mode has left aside."""
    of = result["device_run"] or result["backend"]
    found: Sequence[str] = of.get("ignored") or []
    return found


def options_of(result: Mapping[str, Any]) -> str:
    """What was in force on the device beside shots; "" where nothing was."""
    of = (result["device_run"] or result["backend"]).get("options") or {}
    told = []
    if of.get("dynamical_decoupling", "off") != "off":
        told.append(f"dynamical decoupling {of['dynamical_decoupling']}")
    if of.get("twirling", "off") != "off":
        told.append({"gates": "gates", "measure": "readout", "all": "gates and readout"}[of["twirling"]] + " twirled")
    if of.get("resilience_level") is not None:
        told.append(f"resilience level {of['resilience_level']}")
    return ", ".join(told)


def show_device(run: Mapping[str, Any], parts: Mapping[str, str]) -> None:
    """The table of the device on stdout."""
    emit(device_table(run, parts))
