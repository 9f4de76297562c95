"""What a report is made from: arms (a model trained somewhere and run somewhere, over seeds) with their figures.

From a comparison every arm is there by design; from runs that somebody names they are found: runs whose configs differ
in the seed alone are one arm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuits.errors import QrunError
from runner.compare.compare import Compared
from runner.compare.evaluation import WHERE
from runner.compare.grid import NONE, UNITS

Result = Mapping[str, Any]
Evaluation = Mapping[str, Any]

QUESTIONS = {"once": "trained on ideal", "each": "trained there", "mitigated": "trained there, mitigated"}
"""Where the models of an arm were trained; they run where the arm says."""


@dataclass(frozen=True)
class Training:
    """Runs that differ in the seed alone."""

    label: str
    results: Mapping[int, Result]

    @property
    def any(self) -> Result:
        """One of them."""
        return next(iter(self.results.values()))


@dataclass(frozen=True)
class Arm:
    """Models trained somewhere and run somewhere.

    Attributes:
        question: A key of QUESTIONS.
        point: Where they run.
        stack: Of the mitigation there.
        training: Whose models they are.
        evaluations: By seed; where the models were not evaluated there is none.
        reference: Place of the arm that it is tested against, in the list of arms; None for none.
        place: On the axis.
        backend: The device.
    """

    question: str
    point: str
    stack: str
    training: Training
    evaluations: Mapping[int, Evaluation]
    reference: int | None = None
    place: float | str | None = None
    backend: str = ""

    @property
    def label(self) -> str:
        """Point and mitigation."""
        return self.point if self.stack == NONE else f"{self.point} + {self.stack}"

    @property
    def is_own(self) -> bool:
        """Whether the models run where they were trained: the results' own figures are of it."""
        return all(e["as_trained"] is None for e in self.evaluations.values())

    def metrics(self, part: str, name: str) -> dict[int, float]:
        """A figure by seed, on a part of the records, calibrated where the model runs."""
        if self.evaluations or not self.is_own:
            found = {seed: e["metrics"].get(part) for seed, e in self.evaluations.items()}
        else:
            found = {seed: r["metrics"].get(part) for seed, r in self.training.results.items()}
        return {seed: float(m[name]) for seed, m in found.items() if m is not None}

    def as_trained(self, part: str, name: str) -> dict[int, float]:
        """The same with calibration and threshold of where it was trained."""
        found = {seed: (e["as_trained"] or e["metrics"]).get(part) for seed, e in self.evaluations.items()}
        return {seed: float(m[name]) for seed, m in found.items() if m is not None}


@dataclass(frozen=True)
class Material:
    """All that a report is made from.

    Attributes:
        title: Of the report.
        arms: See Arm.
        trainings: All runs, each once.
        axis: Name of the axis, or None.
        stacks: Of mitigation.
        notices: What has to be said.
        compared: Whether it is a comparison by design.
        data: Of all runs: {"name", "source", "records", "sha256"}.
    """

    title: str
    arms: list[Arm]
    trainings: list[Training]
    axis: str | None
    stacks: tuple[str, ...]
    data: Mapping[str, Any]
    notices: list[str] = field(default_factory=list)
    compared: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int]:
        """All seeds."""
        return sorted({seed for training in self.trainings for seed in training.results})

    @property
    def any(self) -> Result:
        """One of the results."""
        return self.trainings[0].any


def from_comparison(found: Compared) -> Material:
    """Arms as they were asked for."""
    grid = found.grid
    trainings: dict[str, Training] = {}
    arms: dict[tuple[str, str, str], Arm] = {}
    for cell, evaluation in found.evaluations:
        result = found.results[cell.run.digest.hex()]
        at = grid.reference(cell.point).label if cell.question == "once" else cell.point.label
        name = f"{at}, trained with {cell.stack}" if cell.question == "mitigated" else at
        training = trainings.setdefault(name, Training(name, {}))
        assert isinstance(training.results, dict)
        training.results[cell.seed] = result
        key = (cell.question, cell.point.label, cell.stack)
        if cell.point.is_ideal and cell.question != "once":
            continue  # the same models at the same place
        arm = arms.setdefault(key, Arm(*_named(cell), training, {}, place=cell.point.place, backend=cell.point.backend))
        assert isinstance(arm.evaluations, dict)
        arm.evaluations[cell.seed] = evaluation
    references = {p.label: grid.reference(p).label for p in grid.points}
    order = {question: i for i, question in enumerate(QUESTIONS)}
    listed = sorted(arms.values(), key=lambda arm: order[arm.question])
    places = {(a.question, a.point): i for i, a in enumerate(listed)}
    with_reference = [
        Arm(
            a.question, a.point, a.stack, a.training, a.evaluations,
            None if references[a.point] == a.point else places["once", references[a.point]], a.place, a.backend,
        )
        for a in listed
    ]  # fmt: skip
    any_result = next(iter(found.results.values()))
    notices = []
    if len(grid.seeds) == 1:
        notices.append(ONE_SEED)
    notices += _version_notices(list(found.results.values()))
    along = "" if grid.axis is None else f" along {UNITS[grid.axis]}"
    devices = list(dict.fromkeys(p.backend for p in grid.points if not p.is_ideal))
    return Material(
        title=f"{grid.experiment}: {', '.join(devices)} against ideal{along}",
        arms=with_reference,
        trainings=list(trainings.values()),
        axis=grid.axis,
        stacks=grid.stacks,
        data=any_result["dataset"],
        notices=notices + _data_notices(any_result),
        compared=True,
        about={"comparison": grid.digest},
    )


def _named(cell: Any) -> tuple[str, str, str]:
    return cell.question, cell.point.label, cell.stack


ONE_SEED = "One seed: there are no intervals, and nothing is tested. Take --seeds 5 or more."


def from_runs(
    runs: Sequence[tuple[Result, Path]], evaluations: Mapping[str, Evaluation], notices: Sequence[str] = ()
) -> Material:
    """Arms of finished runs.

    Args:
        runs: Results and folders.
        evaluations: Of a run's model where it was trained, by the run's name.
        notices: What has to be said already.

    Raises:
        QrunError: They are not on the same data; says what differs.
    """
    results = [result for result, _ in runs]
    check_same_data(results)
    groups: dict[str, dict[int, Result]] = {}
    for result in results:
        values = {k: v for k, v in result["config"].items() if k != "seed"}
        group = groups.setdefault(json.dumps(values, sort_keys=True), {})
        seed = int(result["config"]["seed"])
        while seed in group:  # the same config and seed twice: as another one
            seed += 1_000_000
        group[seed] = result
    keys = list(groups)
    labels = _labels([json.loads(key) for key in keys])
    trainings = [Training(label, groups[key]) for label, key in zip(labels, keys, strict=True)]
    bare = [_without_place(json.loads(key)) for key in keys]
    ideal = {b: i for i, (b, key) in enumerate(zip(bare, keys, strict=True)) if json.loads(key)["backend"] == "ideal"}
    arms = []
    for i, training in enumerate(trainings):
        known = {s: evaluations[r["run"]] for s, r in training.results.items() if r["run"] in evaluations}
        if len(known) < len(training.results):
            known = {}
        reference = ideal.get(bare[i])
        mitigation = training.any["config"].get("mitigation")
        stack = NONE if mitigation is None else str(mitigation["stack"])
        arms.append(
            Arm(
                "each", training.label, stack, training, known, None if reference == i else reference,
                backend=str(training.any["backend"]["name"]),
            )
        )  # fmt: skip
    said = [*notices, *_version_notices(results), *_data_notices(results[0])]
    if all(len(t.results) == 1 for t in trainings):
        said.insert(0, ONE_SEED if len(runs) == 1 else "One seed each: there are no intervals, and nothing is tested.")
    unevaluated = sorted(r["run"] for r in results if r["run"] not in evaluations)
    if unevaluated:
        said.append(
            f"Without scores, and so without ROC, distances and device table: {', '.join(unevaluated[:5])}"
            f"{' ...' if len(unevaluated) > 5 else ''}."
        )
    many = f"{len(runs)} runs" if len(runs) > 1 else str(results[0]["run"])
    return Material(
        title=f"{results[0]['config']['experiment']}: {many}",
        arms=arms,
        trainings=trainings,
        axis=None,
        stacks=tuple(dict.fromkeys(a.stack for a in arms)),
        data=results[0]["dataset"],
        notices=said,
        about={},
    )


def _without_place(config: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in config.items() if k not in WHERE}, sort_keys=True)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def _labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The device, and what else of the configs differs."""
    flat = [_flat(config) for config in configs]
    keys = sorted({key for config in flat for key in config})
    differs = [
        key
        for key in keys
        if key not in ("backend", "snapshot_sha256") and len({str(config.get(key)) for config in flat}) > 1
    ]
    out = []
    for config in flat:
        name = str(config["backend"])
        parts = [Path(name).stem if name.endswith(".json") else name]
        parts += [f"{key.split('.')[-1]} {config[key]}" for key in differs if config.get(key) is not None]
        out.append(", ".join(parts))
    # Snapshot files of one name are told apart by their content.
    twice = {label for label in out if out.count(label) > 1}
    return [
        f"{label} ({str(c.get('snapshot_sha256'))[:8]})" if label in twice else label
        for label, c in zip(out, flat, strict=True)
    ]


def check_same_data(results: Sequence[Result]) -> None:
    """Refuse runs whose figures are not of the same records.

    Raises:
        QrunError: Says what differs.
    """
    first = results[0]
    for other in results[1:]:
        apart = []
        for key, what in (("experiment", "experiment"),):
            if first["config"][key] != other["config"][key]:
                apart.append(f"{what}: {first['config'][key]} and {other['config'][key]}")
        for key in ("name", "source"):
            if first["dataset"][key] != other["dataset"][key]:
                apart.append(f"data {key}: {first['dataset'][key]} and {other['dataset'][key]}")
        ours, theirs = first["dataset"]["sha256"], other["dataset"]["sha256"]
        for name in sorted(set(ours) | set(theirs)):
            if ours.get(name) != theirs.get(name):
                said = [str(h)[:12] if h else "not read" for h in (ours.get(name), theirs.get(name))]
                apart.append(f"{name}: {said[0]} and {said[1]}")
        if apart:
            raise QrunError(
                f"runs {first['run']} and {other['run']} are on different data ({'; '.join(apart)}).",
                "Report on each by itself.",
            )


def _version_notices(results: Sequence[Result]) -> list[str]:
    names = ("qrun", "torch", "qiskit", "mitiq", "instruction set")
    said = []
    for name in names:
        found = sorted({str(r["versions"].get(name)) for r in results if r["versions"].get(name) is not None})
        if len(found) > 1:
            said.append(f"The runs were made with different versions of {name}: {', '.join(found)}.")
    return said


def _data_notices(result: Result) -> list[str]:
    if result["dataset"]["source"] == "official":
        return []
    return ["Stand-in data: records are drawn from a statistical model of the data set, not from the data set itself."]
