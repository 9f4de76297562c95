"""What the pages show, read from the runs' folders: nothing there is written, locked or asked of a network."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backends.runtime.ledger import Job
from circuits.errors import QrunError
from runner.compare.evaluation import recall
from runner.ledger import Account, read_ledger
from runner.report.build import build
from runner.report.document import Column, Plot, Report, Section, Table
from runner.report.html import as_html
from runner.report.material import from_runs
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex, RunInfo

REFRESH = 5
"""Seconds after which a page asks again."""
WAITING = ("intended", "sending", "sent")
"""States of jobs in the queue."""


@dataclass(frozen=True)
class Live:
    """A run as it stands.

    Attributes:
        info: Its name, folder and state.
        config: As it was written down; empty where that cannot be read.
        rounds: Settled ones, as a result has them.
        phases: Seconds by phase.
        jobs: On devices.
        account: What they come to.
        result: Of a finished run.
    """

    info: RunInfo
    config: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]] = ()
    phases: Mapping[str, float] = field(default_factory=dict)
    jobs: Sequence[Job] = ()
    account: Account | None = None
    result: Mapping[str, Any] | None = None

    @property
    def qpu_seconds(self) -> float:
        """Charged, or possibly charged."""
        return 0.0 if self.account is None else self.account.qpu_seconds


def read_live(info: RunInfo) -> Live:
    """A run as it stands; what cannot be read is left out."""
    config: Mapping[str, Any] = {}
    try:
        config = read_manifest(info.path)[0].model_dump(mode="json")
    except QrunError:
        return Live(info, config)
    result = None
    if info.state == "finished":
        with suppress(QrunError):
            result = read_result(info.path)
    rounds, phases = _state(info.path)
    jobs: list[Job] = []
    account = None
    with suppress(QrunError, sqlite3.Error):
        jobs, sessions = read_ledger(info.path)
        account = Account.of(jobs, sessions) if jobs else None
    return Live(info, config, rounds if result is None else result["rounds"], phases, jobs, account, result)


def _state(folder: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Settled rounds and seconds by phase, from the state of a run that may be going on."""
    file = folder / "state.sqlite"
    if not file.is_file():
        return [], {}
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as sql:
            found = sql.execute("select value from facts where key glob 'told/*'").fetchall()
            phases = dict(sql.execute("select name, seconds from phases order by rowid").fetchall())
        rounds = sorted((json.loads(value) for (value,) in found), key=lambda r: int(r["number"]))
        return [r for r in rounds if not r["void"]], {str(k): float(v) for k, v in phases.items()}
    except (sqlite3.Error, ValueError, KeyError, TypeError):
        return [], {}


def all_live() -> list[Live]:
    """All runs, newest first."""
    index = RunIndex()
    try:
        infos = index.list()
    finally:
        index.close()
    return [read_live(info) for info in reversed(infos)]


def find(name: str) -> RunInfo | None:
    """The run of exactly that name."""
    index = RunIndex()
    try:
        return next((info for info in index.list() if info.run == name), None)
    finally:
        index.close()


# -- pages ------------------------------------------------------------------------------------------------------------


def overview() -> str:
    """Runs, rounds, jobs in the queue, reputation, spend."""
    runs = all_live()
    going = [live for live in runs if live.info.state == "running"]
    waiting = [(live, job) for live in runs for job in live.jobs if job.state in WAITING and not job.local]
    spent = sum(live.qpu_seconds for live in runs)
    sentences = (
        f"{len(runs)} runs, {len(going)} of them going on.",
        f"{len(waiting)} jobs in the queues of devices; {spent:.1f} QPU seconds spent by all runs.",
    )
    columns = (
        Column("run", "run", "link"),
        Column("state", "state"),
        Column("backend", "backend"),
        Column("engine", "engine"),
        Column("seed", "seed", "whole"),
        Column("round", "round"),
        Column("validation", "validation AUROC", "fixed"),
        Column("holdout", "hold-out AUROC", "fixed"),
        Column("reputation", "lowest reputation", "fixed", 1),
        Column("jobs", "jobs waiting", "whole"),
        Column("qpu", "QPU spent", "fixed", 1, "s"),
        Column("seconds", "seconds", "fixed", 0),
        Column("created", "created (UTC)"),
    )
    table = Table("runs", "Runs", columns, tuple(_line(live) for live in runs))
    sections = [Section("runs", "Runs", (), (table,))]
    if waiting:
        sections.append(Section("jobs", "Jobs in the queue", (), (_jobs([(r.info.run, j) for r, j in waiting]),)))
    made = Report("qrun: runs", sentences, (), tuple(sections), {"read": _now()})
    return as_html(made, refresh=REFRESH)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _line(live: Live) -> dict[str, Any]:
    last = live.rounds[-1] if live.rounds else None
    reputations = list(last["settlement"]["reputation"].values()) if last is not None else []
    holdout = None if live.result is None else live.result["metrics"]["holdout"]
    return {
        "run": live.info.run,
        "state": live.info.state,
        "backend": None if not live.config else Path(str(live.config["backend"])).name,
        "engine": live.config.get("engine"),
        "seed": live.config.get("seed"),
        "round": f"{len(live.rounds)} of {live.config['rounds']}" if live.config else None,
        "validation": None if last is None else float(last["aggregate"]["metrics"]["auroc"]),
        "holdout": None if holdout is None else float(holdout["auroc"]),
        "reputation": min(map(float, reputations), default=None),
        "jobs": sum(job.state in WAITING and not job.local for job in live.jobs),
        "qpu": live.qpu_seconds,
        "seconds": sum(live.phases.values()) or None,
        "created": datetime.fromtimestamp(live.info.created, UTC).isoformat(sep=" ", timespec="seconds")[:19],
    }


def _jobs(found: Sequence[tuple[str, Job]]) -> Table:
    columns = (
        Column("run", "run", "link"),
        Column("job", "job", "mono"),
        Column("state", "state"),
        Column("for", "for"),
        Column("backend", "backend"),
        Column("circuits", "circuits", "whole"),
        Column("shots", "shots", "whole"),
        Column("estimate", "QPU, estimated", "fixed", 1, "s"),
        Column("qpu", "QPU", "fixed", 1, "s"),
    )
    rows = [
        {
            "run": run,
            "job": job.job_id or job.tag,
            "state": job.state,
            "for": job.key,
            "backend": job.backend,
            "circuits": job.circuits,
            "shots": job.shots,
            "estimate": job.estimate,
            "qpu": job.qpu_seconds,
        }
        for run, job in found
    ]
    return Table("jobs", "Jobs", columns, tuple(rows))


def run_page(info: RunInfo) -> str:
    """One run: its report where it is finished, else how far it is."""
    live = read_live(info)
    if live.result is not None:
        config = read_manifest(info.path)[0]
        known = recall(info.path, live.result, config)
        evaluations = {} if known is None else {str(live.result["run"]): known}
        made = build(from_runs([(live.result, info.path)], evaluations))
        if live.jobs:
            made = _with_jobs(made, live)
        return as_html(made, back="/")
    return as_html(_going(live), refresh=REFRESH if info.state == "running" else None, back="/")


def _with_jobs(made: Report, live: Live) -> Report:
    jobs = Section("jobs", "Jobs", (), (_jobs([(live.info.run, job) for job in live.jobs]),))
    return Report(made.title, made.sentences, made.notices, (*made.sections, jobs), made.about)


def _going(live: Live) -> Report:
    """A run that is not finished."""
    state, name = live.info.state, live.info.run
    notices = [] if state == "running" else [f"It is {state}; go on with: qrun runs resume {name}"]
    if not live.config:
        return Report(name, (f"Run {name} is {state}.",), tuple(notices), (), {"read": _now()})
    sentences = [
        f"Run {name} is {state}: {len(live.rounds)} of {live.config['rounds']} rounds are settled.",
        f"{live.config['experiment']} on {Path(str(live.config['backend'])).name}, engine {live.config['engine']}, "
        f"{live.config['nodes']} nodes, seed {live.config['seed']}; {live.qpu_seconds:.1f} QPU seconds spent.",
    ]
    sections = []
    if live.rounds:
        sections.append(_rounds(live))
    if live.phases:
        phases = [{"phase": k, "seconds": v} for k, v in live.phases.items()]
        columns = (Column("phase", "phase"), Column("seconds", "seconds", "fixed", 1))
        sections.append(Section("phases", "Seconds", (), (Table("phases", "By phase", columns, tuple(phases)),)))
    if live.jobs:
        sections.append(Section("jobs", "Jobs", (), (_jobs([(name, job) for job in live.jobs]),)))
    return Report(name, tuple(sentences), tuple(notices), tuple(sections), {"read": _now()})


def _rounds(live: Live) -> Section:
    nodes = sorted({int(i) for r in live.rounds for i in r["settlement"]["reputation"]})
    numbers = [int(r["number"]) for r in live.rounds]
    quality: list[dict[str, Any]] = [
        {
            "label": f"node {i}",
            "x": numbers,
            "y": [next((n["metrics"]["auroc"] for n in r["nodes"] if n["id"] == i), None) for r in live.rounds],
            "thin": True,
        }
        for i in nodes
    ]
    aggregate = [float(r["aggregate"]["metrics"]["auroc"]) for r in live.rounds]
    quality.append({"label": "aggregate", "x": numbers, "y": aggregate, "ink": True})
    standing = [
        {
            "label": f"node {i}",
            "x": numbers,
            "y": [r["settlement"]["reputation"].get(str(i)) for r in live.rounds],
        }
        for i in nodes
    ]
    plots = (
        Plot(
            "convergence",
            "Validation AUROC by round",
            f"Validation AUROC over {len(numbers)} rounds; the aggregate is at {aggregate[-1]:.4f}.",
            "lines",
            {"panels": [{"title": "", "series": quality}], "xlabel": "round", "ylabel": "AUROC", "whole": True},
        ),
        Plot(
            "reputation",
            "Reputation by round",
            "Reputation of each node over the rounds, from 0 to 100.",
            "lines",
            {
                "panels": [{"title": "", "series": standing}],
                "xlabel": "round",
                "ylabel": "reputation",
                "whole": True,
                "ylim": [0, 105],
            },
        ),
    )
    rows = [
        {
            "round": int(r["number"]),
            "node": int(n["id"]),
            "auroc": float(n["metrics"]["auroc"]),
            "f1": float(n["metrics"]["f1"]),
            "grades": " ".join(f"{k}:{v}" for k, v in n["grades"].items()),
            "reputation": float(n["reputation"]),
            "fault": n["fault"] or None,
            "model": n["cid"],
        }
        for r in live.rounds
        for n in r["nodes"]
    ]
    columns = (
        Column("round", "round", "whole"),
        Column("node", "node", "whole"),
        Column("auroc", "AUROC", "fixed"),
        Column("f1", "F1", "fixed"),
        Column("grades", "grades given"),
        Column("reputation", "reputation", "fixed", 1),
        Column("fault", "fault"),
        Column("model", "model, CID", "mono"),
    )
    return Section("rounds", "Rounds", (), (Table("rounds", "By round and node", columns, tuple(rows)),), plots)
