"""`qrun attack`: from options to a table; what a file has already is not computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.runtime.types import Tell, silent
from circuits.errors import UsageError
from experiments.base import find
from experiments.datasets.split import parse_partition
from runner.attack.attacks import ATTACKS, find_attack
from runner.attack.cells import Cell, CellFile, Line, plan
from runner.attack.pool import Job, play_all
from runner.attack.summary import Row, summarise
from runner.config import RunConfig, read_toml
from runner.options import config_from
from runner.progress import Warn
from runner.seeds import derive
from runner.settings import AGGREGATIONS

DEFAULTS: dict[str, Any] = {"nodes": 10, "rounds": 10, "qubits": 4, "steps_per_epoch": 40}
"""Where neither options nor the config file say otherwise."""

WINDOWS = 20
"""The same of rounds where they are windows: who is slow needs some for a few models."""

OTHERS = 5
"""Seeds on which aggregations without grades are played."""

QUICK: dict[str, Any] = {
    "attacks": ("none", "sign-flip", "scaled", "stale-aggregate", "poisoned"),
    "partitions": ("iid",),
    "aggregations": ("reputation", "mean"),
    "seeds": 1,
    "rounds": 4,
}
"""The slice that CI runs."""

QUICK_WINDOWS = 8
"""Its rounds where they are windows."""


@dataclass(frozen=True)
class Request:
    """What is asked for; every name checked."""

    config: RunConfig
    bad: int
    seeds: range
    attacks: tuple[str, ...]
    partitions: tuple[str, ...]
    aggregations: tuple[str, ...]
    jobs: int

    @property
    def cells(self) -> list[Cell]:
        """What has to be played."""
        return plan(self.partitions, self.seeds, self.attacks, self.aggregations, others=OTHERS)


@dataclass(frozen=True)
class Table:
    """What came of it, and the data that it came of ("official", "stand-in")."""

    rows: list[Row]
    source: str

    def to_json(self, request: Request) -> dict[str, Any]:
        """As plain values."""
        return {
            "experiment": request.config.experiment,
            "config": request.config.model_dump(mode="json"),
            "hostile_nodes": request.bad,
            "seeds": list(request.seeds),
            "source": self.source,
            "rows": [row.to_json() for row in self.rows],
        }


def request(
    experiment: str,
    options: Mapping[str, Any],
    *,
    file: Path | None,
    bad: int,
    seeds: int,
    first_seed: int = 0,
    attacks: Sequence[str] = (),
    partitions: Sequence[str] = (),
    aggregations: Sequence[str] = (),
    jobs: int,
    tell: Tell = silent,
) -> Request:
    """Check what is asked for. `tell` is told what was chosen where the config file leaves it open, and why.

    Raises:
        UsageError: unknown names, impossible numbers; in one line.
    """
    given = {} if file is None else read_toml(file)
    model = given.get("model", {})
    known = {**given, **(model if isinstance(model, dict) else {})}
    federation = given.get("federation", {})
    said = {k: v for k, v in options.items() if v is not None}
    known = {**(federation if isinstance(federation, dict) else {}), **known, **said}
    defaults = DEFAULTS
    if known.get("schedule") == "async":
        # With fewer graders than this the hostile ones among them may be the majority.
        defaults = {**DEFAULTS, "rounds": WINDOWS, "quorum": min(2 * max(bad, 0) + 1, 255)}
    values = {k: v for k, v in defaults.items() if k not in known} | said
    config = config_from(experiment, {**values, "test": False}, file, tell=tell)
    if not 1 <= bad < (config.nodes + 1) // 2:
        most = (config.nodes + 1) // 2 - 1
        raise UsageError(
            f"--bad {bad}: of {config.nodes} nodes at least 1 and fewer than half are hostile.",
            f"Take 1 to {most}." if most else "Take more --nodes.",
        )
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1.")
    if first_seed < 0:
        raise UsageError(f"--first-seed {first_seed}: 0 or more.")
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least 1.")
    for name in partitions:
        parse_partition(name)
    for name in aggregations:
        if name not in AGGREGATIONS:
            raise UsageError(f"unknown aggregation {name!r}.", f"Known: {', '.join(AGGREGATIONS)}.")
    return Request(
        config,
        bad,
        range(first_seed, first_seed + seeds),
        _attacks(attacks, asynchronous=config.federation.asynchronous),
        tuple(dict.fromkeys(partitions)) or ("iid", "dirichlet:0.5"),
        tuple(dict.fromkeys(aggregations)) or AGGREGATIONS,
        jobs,
    )


def _attacks(names: Sequence[str], *, asynchronous: bool) -> tuple[str, ...]:
    """The attacks of those names, or all that a schedule has: what is made up in round 0 knows no schedule.

    Raises:
        UsageError: an unknown one, or one of the other schedule.
    """
    found = [find_attack(name) for name in dict.fromkeys(names)]
    for attack in found:
        if attack.schedule and not asynchronous:
            raise UsageError(f"{attack.name} is of nodes that do not wait.", f"Add --schedule {attack.schedule}.")
    if found:
        return tuple(attack.name for attack in found)
    if asynchronous:
        return tuple(a.name for a in ATTACKS.values() if not a.made_up)
    return tuple(a.name for a in ATTACKS.values() if not a.schedule)


def tabulate(
    asked: Request,
    *,
    data: Path | None = None,
    out: Path | None = None,
    notify: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int, Line | None], None] = lambda done, total, line: None,
    tell: Tell = silent,
) -> Table:
    """Play all cells that are not in the file yet, and sum up those that were asked for.

    Args:
        asked: From `request`.
        data: Folder of the data set's files.
        out: File of finished cells; made, or gone on with.
        notify: Told what the user should know, e.g. that a stand-in is used.
        progress: Told of (cells done, cells in all, the last one).
        tell: Told what mitigation will do, where there is one.

    Raises:
        UsageError: Mitigation that cannot be had, or is past its budget; before anything is played.
    """
    config = asked.config
    study = find(config.experiment).load(
        config.data, nodes=config.nodes, seeds=lambda p, *parts: derive(0, p, *parts), folder=data, notify=notify
    )
    about = {
        "config": config.model_copy(update={"seed": 0}).digest.hex(),
        "hostile": asked.bad,
        "data": study.dataset.sha256,
        "source": study.dataset.source,
    }
    file = CellFile(out, about)
    try:
        cells = asked.cells
        missing = [c for c in cells if c not in file.rows]
        if missing and config.mitigation is not None:
            _check_mitigation(asked, tell)
        done = len(cells) - len(missing)
        progress(done, len(cells), None)

        def keep(line: Line) -> None:
            nonlocal done
            file.add(line)
            done += 1
            progress(done, len(cells), line)

        play_all(Job(config, asked.bad, data), missing, asked.jobs, keep)
        return Table(summarise([file.rows[c] for c in cells], config.nodes), study.dataset.source)
    finally:
        file.close()


class _Notices(Warn):
    """Hands on what the user must know, and says nothing of the progress."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell

    def notice(self, title: str, text: str) -> None:
        """Tell."""
        self.tell(title, text)


def _check_mitigation(asked: Request, tell: Tell) -> None:
    """As before a run: what mitigation takes is held against its budget, and what it will do is forecast and told."""
    from runner.prepare import prepare

    prepare(asked.config.model_copy(update={"seed": asked.seeds[0]}), _Notices(tell))
