"""The scripts of docs/decisions/0013-small-nodes.md: their pure parts, and one tiny federation of each."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from experiments.models.baselines.base import FloatArray, Training
from runner.benchmark.bench import Bench
from runner.config import RunConfig
from runner.options import config_from
from tests.benchmarks import augmentation, protocols
from tests.benchmarks.differences import FIGURES, PARTS, Figures, absolute, difference, mean_of


def tiny(**options: object) -> RunConfig:
    small = {"backend": "ideal", "qubits": 2, "reps": 1, "features": 6, "rounds": 1, "nodes": 2, "steps_per_epoch": 2}
    return config_from("nsl-kdd", {**small, "detector_steps": 2, "samples": 16, **options})


def figures(value: float) -> Figures:
    return {part: dict.fromkeys(FIGURES, value) for part in PARTS}


def test_differences_are_paired_by_seed_and_in_points() -> None:
    first = {0: figures(0.90), 1: figures(0.80), 2: figures(0.70)}
    second = {1: figures(0.79), 0: figures(0.89), 2: figures(0.69), 3: figures(0.0)}
    assert difference(first, second, "test", "f1").startswith("**+1.00 (+1.00 to +1.00)")
    assert difference(first, {0: figures(0.91)}, "test", "f1") == "-1.00"
    assert difference(first, {7: figures(0.91)}, "test", "f1") == "-"
    turned = {0: figures(0.95), 1: figures(0.75), 2: figures(0.70)}
    assert not difference(first, turned, "test", "f1").startswith("**")
    assert absolute(first, "holdout", "auroc").startswith("0.8000 +- ")
    assert mean_of([figures(0.5), figures(0.6)])["test"]["accuracy"] == 0.55


@pytest.mark.parametrize(
    ("points", "said"), [(0.4, "holds"), (0.9, "mean holds"), (1.1, "mean misses"), (1.6, "missed")]
)
def test_a_goal_holds_by_its_interval(points: float, said: str) -> None:
    first = {s: figures(0.90 + 0.002 * s) for s in range(3)}
    second = {s: figures(0.892) for s in range(3)}
    goal = protocols.Goal("", "", "", points)
    assert protocols.verdict(goal, first, second, "holdout", "f1") == said


def test_gaussian_samples_have_the_records_moments() -> None:
    rng = np.random.default_rng(0)
    own = 0.2 * rng.standard_normal((500, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 0.1]])
    samples = augmentation.gaussian_samples(own, 20_000, rng)
    np.testing.assert_allclose(samples.mean(0), own.mean(0), atol=0.01)
    np.testing.assert_allclose(np.cov(samples, rowvar=False), np.cov(own, rowvar=False), atol=0.005)
    few = augmentation.gaussian_samples(own[:2], 100, rng)
    assert np.isfinite(few).all()
    assert np.abs(augmentation.gaussian_samples(5 * own, 1000, rng)).max() <= 1


def test_what_a_detector_is_fitted_on() -> None:
    own, everyone = np.full((2, 1), 1.0), np.full((5, 1), 2.0)
    samples = {name: np.full((3, 1), 10.0 + k) for k, name in enumerate((*augmentation.ARMS, "gaussian"))}
    found = {n: augmentation.training_of(n, own, everyone, samples) for n in augmentation.TRAININGS}
    assert [n for n, (_, common) in found.items() if common] == ["quantum only", "all nodes' records"]
    assert found["own"][0].tolist() == own.tolist()
    assert found["quantum only"][0].tolist() == samples["quantum"].tolist()
    for name in ("quantum", "classical", "uniform", "gaussian"):
        assert found[f"own + {name}"][0].tolist() == [*own.tolist(), *samples[name].tolist()]


def test_augmentation_plays_and_reads_back_what_it_wrote() -> None:
    row = augmentation.play(tiny(), None, 40, count=60)
    assert augmentation.read(json.loads(json.dumps(asdict(row)))) == row
    own = row.figures["pca"]["own"]
    assert own.keys() == PARTS.keys()
    assert all(0 <= value <= 1 for part in own.values() for value in part.values())
    assert row.energy["uniform"] > row.energy["gaussian"]
    trainings = len(augmentation.TRAININGS)
    assert len(augmentation.table([row], list(augmentation.DETECTORS))) == 2 + len(augmentation.DETECTORS) * trainings
    assert len(augmentation.table([row], [None])) == 2 + trainings
    assert len(augmentation.rivals([row])) == 2 + 4
    assert len(augmentation.energies([row])) == 3
    with pytest.raises(ValueError, match="not a row"):
        augmentation.read({**asdict(row), "figures": {}})


class _Seen:
    """A detector that learns nothing, and keeps what it was shown."""

    def __init__(self, shown: list[Training]) -> None:
        self.shown = shown

    def fit(self, data: Training) -> None:
        self.shown.append(data)

    def scores(self, x: FloatArray) -> FloatArray:
        return x[:, 0]


def test_detectors_are_shown_the_same_whatever_holdout_and_test_are(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench.load(tiny(), None, records=40)
    study = bench.study
    assert study.test is not None
    other = replace(study, holdout=study.test, test=study.holdout)
    samples = {name: np.zeros((20, 6)) for name in augmentation.ARMS}
    shown: list[list[Training]] = [[], []]
    for seen, one in zip(shown, (bench, Bench(bench.config, other)), strict=True):
        monkeypatch.setattr(augmentation, "DETECTORS", {"seen": lambda bench, seen=seen: _Seen(seen)})
        augmentation.measure(one, samples)
    # Own records, and with four kinds of samples, by node; samples alone, and all nodes' records, once.
    assert [len(seen) for seen in shown] == [2 * 5 + 2] * 2
    for first, second in zip(*shown, strict=True):
        np.testing.assert_array_equal(first.train, second.train)
        np.testing.assert_array_equal(first.benign, second.benign)
        assert len(first.attacks) == 0


def test_protocols_play_the_same_records() -> None:
    rows = [protocols.play(tiny(), None, name) for name in ("federated", "centralised", "isolated, dirichlet")]
    federated, centralised, isolated = rows
    assert sum(federated.records) == sum(centralised.records) == sum(isolated.records)
    assert [len(row.nodes) for row in rows] == [0, 0, 2]
    assert isolated.figures == mean_of(isolated.nodes)
    for row in rows:
        assert protocols.read(json.loads(json.dumps(asdict(row)))) == row
    found = protocols.by_arm(rows)
    assert list(found) == [row.arm for row in rows]
    assert len(protocols.table(found)) == 2 + 3
    assert len(protocols.goals(found)) == 2 + 1  # the one goal whose two arms were played


def test_a_node_alone_knows_its_own_records_only() -> None:
    bench = Bench.load(protocols.ARMS["isolated, dirichlet"].config(tiny()), None)
    benches = protocols.alone(bench)
    assert [one.study.shares for one in benches] == [(share,) for share in bench.study.shares]
    assert len({one.feature_map.to_bytes() for one in [bench, *benches]}) == 3


def test_all_steps_are_those_of_all_nodes() -> None:
    config = tiny()
    model = protocols.ARMS["centralised, all steps"].config(config).model
    assert model.steps_per_epoch == 2 * config.model.steps_per_epoch
    assert model.detector_steps == 2 * config.model.detector_steps
