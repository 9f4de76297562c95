"""What is compared: points (a device, and a place on an axis), each with and without mitigation, over seeds.

Two questions are asked of every point:

    once     the model that was trained without noise, run there: what does the device do to it
    each     a model that was trained there: does training adapt

and with `train_each` a third: a model whose training was mitigated too. The reference of a point is the same model on
the ideal target, trained with the same seed; it is always part of the comparison.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backends.mitigation.stack import parse
from circuits.errors import UsageError
from runner.compare.evaluation import WHERE, ideal
from runner.config import RunConfig, build_config, read_toml
from runner.options import config_from
from runner.settings import TECHNIQUE_OPTIONS

FORMAT = "qrun-compare/1"
BACKENDS = ("ideal", "fake_kyiv", "fake_torino", "fake_fez")
SEEDS = 5
IDEAL = "ideal"
NONE = "none"
MOST = 10_000
"""Runs of a grid: more are a mistake."""

Question = Literal["once", "each", "mitigated"]

AXES: Mapping[str, str] = {
    "noise": "noise_scale",
    "calibration": "backend",
    "layout": "layout",
    "reps": "reps",
    "qubits": "qubits",
    "shots": "shots",
}
"""Name of an axis -> the option that varies along it."""
UNITS = {
    "noise": "noise scale",
    "calibration": "calibration date",
    "layout": "layout",
    "reps": "repetitions",
    "qubits": "qubits",
    "shots": "shots",
}


@dataclass(frozen=True)
class Point:
    """A place where models run.

    Attributes:
        label: What it is called.
        backend: The device's name.
        place: Where on the axis; None without one, and for the ideal target.
        config: Unmitigated; its seed is each run's own.
    """

    label: str
    backend: str
    place: float | str | None
    config: RunConfig

    @property
    def is_ideal(self) -> bool:
        """Whether it is the reference itself."""
        return self.backend == IDEAL


@dataclass(frozen=True)
class Cell:
    """One figure's origin: a run's final model under a profile.

    Attributes:
        question: See the module.
        point: Which point.
        stack: Of the mitigation at evaluation, or NONE.
        seed: Of the run.
        run: Config of the run whose model it is.
        profile: Where it is run.
    """

    question: Question
    point: Point
    stack: str
    seed: int
    run: RunConfig
    profile: RunConfig


@dataclass(frozen=True)
class Grid:
    """What is compared; every name checked.

    Attributes:
        points: The ideal ones first.
        stacks: Of mitigation, NONE first.
        seeds: Each with each point is a training.
        axis: A key of AXES, or None.
        train_each: Whether models are trained with mitigation, too.
        tables: Stack -> its options in the table [mitigation].
    """

    experiment: str
    points: tuple[Point, ...]
    stacks: tuple[str, ...]
    seeds: tuple[int, ...]
    axis: str | None
    train_each: bool
    tables: Mapping[str, Mapping[str, Any]]

    def reference(self, point: Point) -> Point:
        """The ideal point with the same model."""
        wanted = ideal(point.config).digest
        return next(p for p in self.points if p.is_ideal and p.config.digest == wanted)

    def mitigated(self, config: RunConfig, stack: str, apply: str) -> RunConfig:
        """A config with a stack."""
        if stack == NONE:
            return config
        table = {**self.tables[stack], "stack": stack, "apply": apply}
        return build_config({**config.model_dump(mode="json"), "mitigation": table})

    def cells(self) -> Iterator[Cell]:
        """All of them, by seed, then point."""
        for seed in self.seeds:
            for point in self.points:
                own = point.config.model_copy(update={"seed": seed})
                origin = self.reference(point).config.model_copy(update={"seed": seed})
                for stack in (NONE,) if point.is_ideal else self.stacks:
                    there = self.mitigated(own, stack, "evaluation")
                    moved = origin.model_copy(update={name: getattr(there, name) for name in WHERE})
                    yield Cell("once", point, stack, seed, origin, moved)
                    yield Cell("each", point, stack, seed, own, there)
                    if self.train_each and stack != NONE:
                        trained = self.mitigated(own, stack, "both")
                        yield Cell("mitigated", point, stack, seed, trained, trained)

    def jobs(self) -> list[Job]:
        """The runs, each with all the profiles of its model, in the order of the cells."""
        runs: dict[bytes, tuple[RunConfig, dict[bytes, RunConfig]]] = {}
        for cell in self.cells():
            _, profiles = runs.setdefault(cell.run.digest, (cell.run, {}))
            profiles.setdefault(cell.profile.digest, cell.profile)
        return [Job(config, tuple(profiles.values())) for config, profiles in runs.values()]

    @property
    def digest(self) -> str:
        """Of all that defines the comparison, hex."""
        about = {
            "format": FORMAT,
            "points": [[p.label, p.config.digest.hex()] for p in self.points],
            "stacks": list(self.stacks),
            "tables": {k: dict(v) for k, v in self.tables.items()},
            "seeds": list(self.seeds),
            "axis": self.axis,
            "train_each": self.train_each,
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """A run, and the profiles that its model is evaluated under."""

    config: RunConfig
    profiles: tuple[RunConfig, ...]


def grid_of(
    experiment: str,
    options: Mapping[str, Any],
    *,
    file: Path | None = None,
    backends: Sequence[str] = (),
    stacks: Sequence[str] = (),
    seeds: int | Sequence[int] = SEEDS,
    axis: tuple[str, str] | None = None,
    train_each: bool = False,
) -> Grid:
    """Check what is asked for.

    Args:
        experiment: Its name.
        options: Values of RunConfig that all points share.
        file: TOML file of values.
        backends: Names; `BACKENDS` without one, and with an axis the config's own.
        stacks: Techniques and stacks; none is always among them.
        seeds: How many, from 0 on; or which.
        axis: A name of AXES, and its values separated by commas.
        train_each: Whether models are trained with mitigation, too.

    Raises:
        UsageError: Unknown names, or what cannot be; in one line.
    """
    chosen = _seeds(seeds)
    along = None if axis is None else _values(*axis)
    if axis is not None and along is not None and AXES[axis[0]] in options and options[AXES[axis[0]]] is not None:
        raise UsageError(f"--{axis[0]} and --axis {axis[0]} say the same thing.", "Leave one of them out.")
    names = _names(experiment, options, file, backends, along)
    points: list[Point] = []
    # The ideal target is every device's reference; by itself it is named where there is nothing else.
    for name in [name for name in names if name.strip().lower() != IDEAL] or names:
        for place in (None,) if along is None else along[1]:
            points += _points(experiment, options, file, name, at=(None if along is None else along[0], place))
    unique: dict[bytes, Point] = {}
    for point in points:
        unique.setdefault(point.config.digest, point)
    ordered = sorted(unique.values(), key=lambda point: not point.is_ideal)
    found = _stacks(stacks)
    structural = along is not None and along[0] in ("reps", "qubits")
    if all(point.is_ideal for point in ordered) and (len(found) > 1 or not structural):
        raise UsageError("there is nothing to compare with ideal.", "Name devices with --backends.")
    grid = Grid(
        experiment, tuple(ordered), found, chosen, None if axis is None else axis[0], train_each, _tables(file, found)
    )
    for point in grid.points:  # a stack that cannot be had is told before anything runs
        for stack in () if point.is_ideal else found:
            grid.mitigated(point.config, stack, "evaluation")
    if len(grid.points) * len(found) * len(chosen) > MOST:
        raise UsageError(f"that is a grid of more than {MOST:,} cells.", "Take fewer backends, values or seeds.")
    return grid


def _points(
    experiment: str,
    options: Mapping[str, Any],
    file: Path | None,
    name: str,
    *,
    at: tuple[str | None, float | str | None],
) -> list[Point]:
    """A point (axis, and place on it), and its reference."""
    axis, place = at
    values = {**options, "backend": name, "mitigation": {"stack": NONE}}
    if axis == "calibration":
        values["backend"] = place
    elif axis is not None and not (name == IDEAL and axis in ("noise", "layout", "shots")):
        values[AXES[axis]] = None if place == "exact" else place
    config = config_from(experiment, values, file).model_copy(update={"seed": 0})
    if config.engine == "runtime" or config.runtime is not None:
        raise UsageError("a comparison is played on twins: nothing is sent to a device.", "Take --engine twin or aer.")
    structural = axis in ("reps", "qubits")
    reference = ideal(config)
    suffix = f", {UNITS[axis]} {_plain(place)}" if structural and axis is not None else ""
    found = [Point(f"ideal{suffix}", IDEAL, place if structural else None, reference)]
    if config.backend == IDEAL:
        return found
    if axis == "calibration":
        label, date = _calibration(config.backend, str(place))
        return [*found, Point(label, label.split(",")[0], date, config)]
    shown = _short(config.backend)
    label = shown if axis is None else f"{shown}, {UNITS[axis]} {_plain(place)}"
    return [*found, Point(label, shown, place, config)]


def _calibration(backend: str, said: str) -> tuple[str, str]:
    """Label and place of a point on the axis of calibrations."""
    from backends.catalog import show

    summary = show(backend)
    date = str(summary.calibration_date or said)
    return f"{summary.name}, calibrated {date[:16]}", date


def _short(backend: str) -> str:
    """A device's name; of a snapshot file, the file's."""
    return Path(backend).stem if backend.endswith(".json") else backend


def _plain(place: float | str | None) -> str:
    return f"{place:g}" if isinstance(place, float) else str(place)


def _names(
    experiment: str,
    options: Mapping[str, Any],
    file: Path | None,
    backends: Sequence[str],
    along: tuple[str, tuple[float | str, ...]] | None,
) -> tuple[str, ...]:
    from backends.catalog import canonical_name

    if along is not None and along[0] == "calibration":
        others = [name for name in backends if name.strip().lower() != IDEAL]
        if others:
            raise UsageError(
                f"--axis calibration names its devices by their snapshot files, and --backends has {others[0]}.",
                "Leave --backends out; `qrun backends save NAME FILE` makes such a file.",
            )
        return (IDEAL,)
    if backends:
        for name in backends:
            canonical_name(name)
        return tuple(dict.fromkeys(name.strip() for name in backends))
    if along is None:
        return BACKENDS
    return (config_from(experiment, {**options, "mitigation": {"stack": NONE}}, file).backend,)


def _stacks(stacks: Sequence[str]) -> tuple[str, ...]:
    found = [NONE]
    for text in stacks:
        if text.strip().lower() == "auto":
            raise UsageError("--mitigation auto is a choice among techniques.", "Name some, as readout,zne.")
        found.append("+".join(parse(text)) or NONE)
    return tuple(dict.fromkeys(found))


def _tables(file: Path | None, stacks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each stack, the options in the file's table [mitigation] that are of its techniques."""
    table = {} if file is None else read_toml(file).get("mitigation", {})
    said = table if isinstance(table, dict) else {}
    out = {}
    for stack in stacks:
        names = stack.split("+")
        of = {k: v for k, v in said.items() if k in TECHNIQUE_OPTIONS and set(TECHNIQUE_OPTIONS[k][0]) & set(names)}
        out[stack] = {**of, **{k: v for k, v in said.items() if k == "budget"}}
    return out


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        if not 1 <= seeds <= 1000:
            raise UsageError(f"--seeds {seeds}: 1 to 1000.")
        return tuple(range(seeds))
    if not seeds or min(seeds) < 0:
        raise UsageError("seeds are whole numbers, 0 or more.")
    return tuple(dict.fromkeys(seeds))


def _values(axis: str, text: str) -> tuple[str, tuple[float | str, ...]]:
    """An axis and its values.

    Raises:
        UsageError: There is no such axis, or a value is none of it.
    """
    if axis not in AXES:
        close = difflib.get_close_matches(axis, AXES, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(AXES)}."
        raise UsageError(f"unknown axis {axis!r}.", hint)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    found: list[float | str] = []
    for part in parts:
        found.append(_value(axis, part))
    found = list(dict.fromkeys(found))
    if len(found) < 2:
        raise UsageError(f"--axis {axis} {text}: an axis has two values or more.", _EXAMPLES[axis])
    if axis not in ("calibration", "shots"):
        found = sorted(found)
    return axis, tuple(found)


def _value(axis: str, part: str) -> float | str:
    if axis == "calibration":
        return part
    if axis == "shots" and part.lower() == "exact":
        return "exact"
    try:
        number = float(part.replace("_", ""))
    except ValueError:
        number = -1.0
    if axis == "noise":
        if not 0 <= number <= 10:
            raise UsageError(f"--axis noise: {part!r} is no factor from 0 to 10.", _EXAMPLES[axis])
        return number
    if number < (0 if axis == "layout" else 1) or number != int(number):
        raise UsageError(f"--axis {axis}: {part!r} is no whole number that can be.", _EXAMPLES[axis])
    return int(number)


_EXAMPLES = {
    "noise": "For example --axis noise 0,1,2,3",
    "calibration": "For example --axis calibration monday.json,friday.json",
    "layout": "For example --axis layout 0,1,2",
    "reps": "For example --axis reps 1,2,4",
    "qubits": "For example --axis qubits 4,6,8",
    "shots": "For example --axis shots exact,1024,8192",
}
