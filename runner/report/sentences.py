"""Three sentences with figures: what was asked, what a device does to a model, and whether training adapts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.compare.grid import NONE, UNITS
from runner.report.document import interval, p_value
from runner.report.material import Arm, Material

if TYPE_CHECKING:
    from runner.compare.stats import Paired

SIGNIFICANT = 0.05


def sentences(material: Material, tests: Mapping[tuple[int, str], Paired]) -> tuple[str, ...]:
    """Of a comparison, or of runs."""
    if not material.compared:
        return _of_runs(material, tests)
    return _asked(material), _once(material, tests), _each(material, tests)


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _model(material: Material) -> str:
    config = material.any["config"]
    model = config["model"]
    axis = material.axis
    size = [] if axis == "qubits" else [_many(model["qubits"], "qubit")]
    size += [] if axis == "reps" else [_many(model["reps"], "repetition")]
    size += [_many(config["nodes"], "node"), _many(config["rounds"], "round")]
    return ", ".join(size)


def _asked(material: Material) -> str:
    devices = list(dict.fromkeys(a.backend for a in material.arms if a.backend != "ideal")) or ["ideal"]
    records = material.data["records"]["train"]
    source = "" if material.data["source"] == "official" else f" ({material.data['source']} data)"
    along = f", along the axis {UNITS[material.axis]}," if material.axis is not None else ""
    stacks = [s for s in material.stacks if s != NONE]
    mitigated = f", without mitigation and with {_listed(stacks)}" if stacks else ", without mitigation"
    trainings = sum(len(t.results) for t in material.trainings)
    evaluations = sum(len(a.evaluations) for a in material.arms)
    return (
        f"Asked: does the noise of {_listed(devices)}{along} matter to a federated model of {material.data['name']}"
        f"{source} ({records:,} training records; {_model(material)}){mitigated}? Answered by "
        f"{_many(trainings, 'training')} over {_many(len(material.seeds), 'seed')} and "
        f"{_many(evaluations, 'evaluation')}."
    )


def _index(material: Material, question: str, stack: str | None) -> list[int]:
    return [
        i
        for i, a in enumerate(material.arms)
        if a.question == question and a.reference is not None and (stack is None or a.stack == stack)
    ]


def _difference(test: Paired) -> str:
    """−0.42 points [−0.80, −0.04], p 0.030 by Holm."""
    said = f"{interval(test.difference.to_dict(), 2, scale=100, sign=True)} points"
    return said if test.adjusted is None else f"{said}, p {p_value(test.adjusted)} by Holm"


def _once(material: Material, tests: Mapping[tuple[int, str], Paired]) -> str:
    plain = _index(material, "once", NONE)
    found = [(i, tests[i, "holdout_auroc"]) for i in plain if (i, "holdout_auroc") in tests]
    if not found:
        return "A model that was trained without noise was not run under any."
    worst, test = max(found, key=lambda one: abs(one[1].difference.mean))
    arms = material.arms
    reference = arms[worst].reference
    assert reference is not None
    start = statistics.fmean(arms[reference].metrics("holdout", "auroc").values())
    apart = {i: _expectation(arms[i]) for i in plain}
    low, high = min(apart.values()), max(apart.values())
    spread = f"{low:.4f}" if len(apart) == 1 else f"{low:.4f} to {high:.4f}"
    said = (
        f"Trained once without noise and run there: hold-out AUROC, {start:.4f} without noise, changes most on "
        f"{arms[worst].point} ({_difference(test)}), with expectation values {spread} off the ideal ones on average"
    )
    mitigated = [i for i in _index(material, "once", None) if arms[i].stack != NONE]
    if mitigated:
        by = {s: statistics.fmean(_expectation(arms[i]) for i in mitigated if arms[i].stack == s)
              for s in dict.fromkeys(arms[i].stack for i in mitigated)}  # fmt: skip
        before = statistics.fmean(apart.values())
        told = ", ".join(f"{value:.4f} with {stack}" for stack, value in by.items())
        best = max(mitigated, key=lambda i: tests[i, "holdout_auroc"].difference.mean)
        after = tests[best, "holdout_auroc"]
        said += (
            f"; mitigation brings that from {before:.4f} to {told} (means over devices), and AUROC differs from "
            f"ideal by {interval(after.difference.to_dict(), 2, scale=100, sign=True)} points at best "
            f"({arms[best].point} + {arms[best].stack})"
        )
    return said + "."


def _expectation(arm: Arm) -> float:
    return statistics.fmean(float(e["expectations"]["mean"]) for e in arm.evaluations.values())


def _each(material: Material, tests: Mapping[tuple[int, str], Paired]) -> str:
    arms = material.arms
    plain = [i for i in _index(material, "each", NONE) if (i, "holdout_auroc") in tests]
    if not plain:
        return "No model was trained under noise."
    means = {i: statistics.fmean(arms[i].metrics("holdout", "auroc").values()) for i in plain}
    best, worst = max(plain, key=lambda i: means[i]), min(plain, key=lambda i: means[i])
    scores = (
        f"{means[best]:.4f} on {arms[best].point}"
        if best == worst
        else f"from {means[worst]:.4f} on {arms[worst].point} to {means[best]:.4f} on {arms[best].point}"
    )
    largest = max(plain, key=lambda i: abs(tests[i, "holdout_auroc"].difference.mean))
    said = f"Trained under each: hold-out AUROC is {scores}"
    counted = [(i, t) for (i, name), t in tests.items() if name == "holdout_auroc" and t.adjusted is not None]
    said += (
        f"; the largest difference to ideal is {_difference(tests[largest, 'holdout_auroc'])} ({arms[largest].point})"
    )
    if counted:
        few = [i for i, t in counted if t.adjusted is not None and t.adjusted < SIGNIFICANT]
        said += (
            f", and of all {_many(len(counted), 'comparison')} with ideal {len(few) or 'none'} "
            f"{'is' if len(few) <= 1 else 'are'} significant at 5 %"
        )
    once = {(arms[i].point): i for i in _index(material, "once", NONE)}
    gains = [
        means[i] - statistics.fmean(arms[once[arms[i].point]].metrics("holdout", "auroc").values())
        for i in plain
        if arms[i].point in once
    ]
    if gains:
        said += (
            f"; training there in place of moving there is worth {100 * statistics.fmean(gains):+.2f} points".replace(
                "-", "−"
            )
        )
        said += " on average" if len(gains) > 1 else ""
    return said + "."


def _of_runs(material: Material, tests: Mapping[tuple[int, str], Paired]) -> tuple[str, ...]:
    runs = sum(len(t.results) for t in material.trainings)
    arms = material.arms
    first = (
        f"Reported: {_many(runs, 'run')} of {material.any['config']['experiment']} ({material.data['source']} data, "
        f"{material.data['records']['train']:,} training records) in {_many(len(arms), 'configuration')}."
    )
    means = {i: statistics.fmean(a.metrics("holdout", "auroc").values()) for i, a in enumerate(arms)}
    best, worst = max(means, key=lambda i: means[i]), min(means, key=lambda i: means[i])
    test_file = {i: a.metrics("test", "auroc") for i, a in enumerate(arms)}
    on_test = f" ({statistics.fmean(test_file[best].values()):.4f} on the test file)" if test_file[best] else ""
    second = f"Hold-out AUROC of the final aggregate is {means[best]:.4f}{on_test}"
    if best != worst:
        second = (
            f"Hold-out AUROC of the final aggregate is from {means[worst]:.4f} ({arms[worst].label}) to "
            f"{means[best]:.4f} ({arms[best].label})"
        )
    counted: list[Any] = [t for (_, name), t in tests.items() if name == "holdout_auroc"]
    if counted:
        few = [t for t in counted if t.adjusted is not None and t.adjusted < SIGNIFICANT]
        third = (
            f"Against ideal, {len(few) or 'none'} of {_many(len(counted), 'difference')} in AUROC "
            f"{'is' if len(few) <= 1 else 'are'} significant at 5 % after Holm's correction."
        )
    else:
        third = "No run is on the ideal target with the same model, so that nothing is tested against it."
        if len(arms) == 1:
            excluded = sum(n["excluded"] for t in material.trainings for r in t.results.values() for n in r["nodes"])
            seconds = statistics.fmean(r["seconds"]["total"] for t in material.trainings for r in t.results.values())
            gone = "no node was" if not excluded else "one node was" if excluded == 1 else f"{excluded} nodes were"
            third = f"A run took {seconds:.0f} s on average, and {gone} excluded."
    return first, second + ".", third
