"""What the terminal shows of jobs on devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from runner.tables import emit, show_table, stdout, table_of

_STEPPED = ("train", "fine-tune")
"""What takes many jobs one after another for the same node and round."""


def seconds(value: float | None) -> str:
    """A number of seconds, short; a dash for none."""
    return "-" if value is None else f"{value:.3g}"


def show_jobs(jobs: Sequence[Mapping[str, Any]]) -> None:
    """One line a job."""
    if not jobs:
        Console(stderr=True).print("no jobs yet: runs with --engine runtime or --run-on NAME send them")
        return
    wide = stdout().width >= 160
    heads = ["job", "state", "run", "for", "backend", "mode", "QPU s"]
    table = table_of("Jobs", [*heads, "circuits", "shots", "created"] if wide else heads, numeric=[6, 7, 8])
    for column in (1, 2, 4):  # where there is room: names are whole, and what a job is for takes a second line
        table.columns[column].no_wrap = stdout().width >= 110
    for job in jobs:
        # Of a tag, and of a local job's long id, the beginning: it is as good as all of it.
        name = job["tag"][:18] if job["job_id"] is None else job["job_id"][:13] if job["local"] else job["job_id"]
        mode = "local" if job["local"] else job["mode"]
        taken = seconds(0.0 if job["local"] else job["qpu_seconds"])
        row = [name, job["state"], job["run"], purpose(job["key"]), job["backend"], mode, taken]
        table.add_row(*map(Text, [*row, str(job["circuits"]), str(job["shots"]), job["created"]] if wide else row))
    emit(table)


def purpose(key: str) -> str:
    """What a job is for, in words: `fine-tune, round 5, node 0, step 2`; its key where that is none of ours.

    Args:
        key: `backends.runtime.labels.Label.key`, and the part of the call that the job is.
    """
    what, *numbers = key.split("/")
    if len(numbers) not in (4, 5) or not all(number.lstrip("-").isdecimal() for number in numbers):
        return key
    round_, _, node, step, part = (int(number) for number in [*numbers, "0"][:5])
    words = [
        what,
        f"round {round_}" if round_ else "",
        f"node {node}" if node >= 0 else "",
        f"step {step + 1}" if what in _STEPPED else "",
        f"part {part + 1}" if part else "",
    ]
    return ", ".join(word for word in words if word)


def show_job(job: Mapping[str, Any]) -> None:
    """One job, a line a figure, and how it stands at the service."""
    rows = [[name.replace("_", " "), _cell(value)] for name, value in job.items()]
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


def _cell(value: object) -> str:
    if value in (None, ""):
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def describe(account: Mapping[str, Any]) -> str:
    """A run's jobs (`runner.ledger.Account`) by state, and what they took, in one line."""
    states = ", ".join(f"{count} {state}" for state, count in account["states"].items() if count)
    if account["local"] == sum(account["states"].values()):
        return f"{states}; in the Runtime's local testing mode, which takes no QPU time"
    # What is on its way counts at its bound until the service has told what it took.
    most = "at most " if account["states"]["sending"] or account["states"]["sent"] else ""
    return f"{states}; {most}{account['qpu_seconds']:.1f} QPU seconds"


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
