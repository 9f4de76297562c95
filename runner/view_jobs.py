"""What the terminal shows of jobs on devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from runner.tables import emit, show_table, stdout


def seconds(value: float | None) -> str:
    """A number of seconds, short; a dash for none."""
    return "-" if value is None else f"{value:.3g}"


def show_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """One line a job."""
    if not jobs:
        Console(stderr=True).print("no jobs yet: runs with --engine runtime or --run-on NAME send them")
        return
    wide = stdout().width >= 120
    rows = []
    for job in jobs:
        name = job["job_id"] or job["tag"]
        row = [name, job["state"], job["run"], job["key"], job["backend"], "local" if job["local"] else job["mode"]]
        row.append(seconds(0.0 if job["local"] else job["qpu_seconds"]))
        rows.append([*row, str(job["circuits"]), str(job["shots"]), job["created"]] if wide else row)
    heads = ["job", "state", "run", "for", "backend", "mode", "QPU s"]
    show_table("Jobs", [*heads, "circuits", "shots", "created"] if wide else heads, rows)


def show_job(job: Mapping[str, Any]) -> None:
    """One job, a line a figure, and how it stands at the service."""
    rows = [[name.replace("_", " "), "-" if value is None else str(value)] for name, value in job.items()]
    rows = [row for row in rows if row[0] != "service"]
    there = job["service"]
    if job["local"]:
        said = "local testing mode: the service has no such job"
    elif there is None:
        said = "it shows no such job" if job["state"] != "intended" else "was never sent"
    elif "unreachable" in there:
        said = f"cannot be asked: {there['unreachable']}"
    else:
        said = " ".join([there["state"], there["reason"]]).strip()
    show_table("Job", ["what", "value"], [*rows, ["at the service", said]])


def describe(account: Mapping[str, Any]) -> str:
    """A run's jobs (`runner.ledger.Account`) by state, and what they took, in one line."""
    states = ", ".join(f"{count} {state}" for state, count in account["states"].items() if count)
    if account["local"] == sum(account["states"].values()):
        return f"{states}; in the Runtime's local testing mode, which takes no QPU time"
    return f"{states}; {account['qpu_seconds']:.1f} QPU seconds"


def show_cancelled(told: Mapping[str, Sequence[str]]) -> None:
    """What has become of the jobs that were to be cancelled."""
    words = {
        "cancelled": "cancelled",
        "ended": "had ended before: `qrun runs resume` takes the result, if there is one",
        "unclear": "not shown by the service, which may have it all the same: try again in a while",
    }
    for what, text in words.items():
        for name in told[what]:
            emit(f"{name}: {text}")
    for name in told["closed"]:
        emit(f"session {name}: closed")
    if not any(told[what] for what in words):
        emit("there is nothing to cancel: no such job is on its way to a device, or on one")
