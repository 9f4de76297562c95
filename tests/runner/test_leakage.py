"""Nothing leaks, by provenance: every record is known by its file and line, and followed to where it goes.

What learns is the feature map, the models, the calibration of scores, the thresholds, and the grades. The hold-out and
the test file reach none of them, which is shown twice: by the lines of the records that do, and by a run whose hold-out
and test records are others, and which comes to the same map, models, calibration and thresholds, byte for byte.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from experiments.base import Study
from experiments.datasets import fetch
from experiments.datasets.types import Records
from experiments.features.map import FeatureMap
from experiments.features.stage import Stage
from experiments.features.stages import Counts
from experiments.models.baselines.base import Training
from experiments.models.baselines.registry import BASELINES, Spec
from experiments.nsl_kdd import NslKdd
from experiments.settings import DataSettings
from runner.benchmark.baseline import judge
from runner.benchmark.bench import Bench
from runner.options import config_from
from runner.seeds import derive

Places = set[tuple[str, int]]

SMALL: dict[str, Any] = {
    "backend": "ideal",
    "qubits": 2,
    "reps": 1,
    "nodes": 3,
    "rounds": 2,
    "steps_per_epoch": 3,
    "signatures": "secp256k1",
}


def places(records: Records | None) -> Places:
    return set() if records is None else {(records.file, line) for line in records.line.tolist()}


def load(partition: str = "iid", seed: int = 0, nodes: int = 3) -> Study:
    data = DataSettings(partition=partition)

    def seeds(purpose: str, *parts: int) -> int:
        return derive(seed, purpose, *parts)

    return NslKdd().load(data, nodes=nodes, seeds=seeds, folder=None, notify=lambda text: None)


@pytest.mark.parametrize(("partition", "seed", "nodes"), [("iid", 0, 3), ("iid", 5, 1), ("dirichlet:0.5", 1, 3)])
def test_every_record_has_one_place(partition: str, seed: int, nodes: int) -> None:
    study = load(partition, seed, nodes)
    train, test = study.dataset.train, study.dataset.test
    assert test is not None
    assert train.file != test.file
    for records in (train, test):
        assert len(places(records)) == len(records)
        assert records.line.tolist() == list(range(1, len(records) + 1))
    parts = [places(study.holdout), places(study.training_attacks)]
    for share in study.shares:
        parts += [places(share.train), places(share.validation), places(share.attacks)]
        assert not share.train.is_attack.any()
        assert not share.validation.is_attack.any()
        assert share.attacks.is_attack.all()
    # Disjoint, and together the training file: no record is in two parts, with two nodes, or lost.
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(train)
    assert set().union(*parts) == places(train)
    assert places(study.test) == places(test)
    assert not places(test) & places(train)


def test_seen_vectors_are_marked_and_no_others() -> None:
    study = load()
    assert study.test is not None
    assert study.seen is not None

    def vectors(records: Records) -> list[tuple[float, ...]]:
        return [tuple(row) for row in np.hstack([records.numeric, records.categorical]).tolist()]

    known = set(vectors(study.dataset.train))
    assert [v in known for v in vectors(study.test)] == study.seen.tolist()


class Spy:
    """Notes where records go while something is done."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.mapped: dict[str, Places] = {}
        self.summed: Places = set()
        apply, contribution = FeatureMap.apply, Counts.contribution

        def applied(own: FeatureMap, records: Records) -> Any:
            frame = inspect.stack()[1]
            by = "judge" if frame.filename.endswith("measure.py") else frame.function
            self.mapped.setdefault(by, set()).update(places(records))
            return apply(own, records)

        patch.setattr(FeatureMap, "apply", applied)
        for stage in [Counts, *_stages()]:
            patch.setattr(stage, "contribution", self._contribution(stage.contribution))
        assert Counts.contribution is not contribution

    def _contribution(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def contributed(own: Stage, records: Records) -> Any:
            self.summed |= places(records)
            return real(own, records)

        return contributed


def _stages() -> list[type[Stage]]:
    return [stage for stage in Stage.__subclasses__() if stage is not Counts and "contribution" in vars(stage)]


def play(folder: Path, patch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    import qrun

    patch.setenv("QRUN_HOME", str(folder / "home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return qrun.run("nsl-kdd", **{**SMALL, **options})


@pytest.mark.slow
def test_in_a_run_only_the_nodes_own_records_reach_map_models_and_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load()
    with monkeypatch.context() as patch:
        spy = Spy(patch)
        play(tmp_path, patch)
    train = set().union(*(places(share.train) for share in study.shares))
    validation = set().union(*(places(share.validation) | places(share.attacks) for share in study.shares))
    assert spy.summed == train
    # What a peer turns into features is all that it trains, calibrates and grades with.
    assert spy.mapped["use_map"] == train | validation
    assert spy.mapped.keys() == {"use_map", "judge"}
    assert spy.mapped["judge"] == places(study.holdout) | places(study.test)
    assert not spy.mapped["judge"] & (train | validation)


def _other(records: Records) -> Records:
    """As many records with the same labels' names turned around, and other values."""
    numeric = np.random.default_rng(1).permutation(records.numeric)
    return Records(numeric, records.categorical[::-1], records.attack[::-1].copy(), records.line, records.file)


@pytest.mark.slow
def test_a_run_learns_the_same_whatever_holdout_and_test_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(result: dict[str, Any]) -> Any:
        rounds = [
            (r["aggregate"], [(n["cid"], n["metrics"], n["grades"]) for n in r["nodes"]]) for r in result["rounds"]
        ]
        thresholds = {name: f["threshold"] for name, f in result["detection"]["parts"]["holdout"].items()}
        return result["feature_map"], result["final"], result["detection"]["detector_cid"], rounds, thresholds

    with monkeypatch.context() as patch:
        plain = play(tmp_path / "one", patch)
    real = NslKdd.load

    def changed(self: NslKdd, *args: Any, **options: Any) -> Study:
        study = real(self, *args, **options)
        assert study.test is not None
        return replace(study, holdout=_other(study.holdout), test=_other(study.test))

    with monkeypatch.context() as patch:
        patch.setattr(NslKdd, "load", changed)
        other = play(tmp_path / "two", patch)
    assert learned(plain) == learned(other)
    assert plain["metrics"] != other["metrics"]


class _Seen:
    """A baseline that learns nothing, and keeps what it was shown."""

    shown: ClassVar[list[Training]] = []

    def fit(self, data: Training) -> None:
        self.shown.append(data)

    def scores(self, x: np.ndarray) -> np.ndarray:
        return x[:, 0]


@pytest.mark.parametrize("features", ["agreed", "all"])
def test_baselines_are_shown_the_same_whatever_holdout_and_test_are(features: Any) -> None:
    spec = Spec("seen", "", lambda model, epochs: _Seen(), features=features, supervised=True)
    config = config_from("nsl-kdd", {"qubits": 3, "backend": "ideal"})
    shown = []
    thresholds = []
    for change in (False, True):
        bench = Bench.load(config, None)
        if change:
            study = bench.study
            assert study.test is not None
            bench = Bench(config, replace(study, holdout=_other(study.holdout), test=_other(study.test)))
        _Seen.shown = []
        found = judge(bench, spec)
        assert found.detection["holdout"] is not None
        thresholds.append([f.metrics.threshold for f in found.detection["holdout"].values()])
        shown.append(list(_Seen.shown))
    assert thresholds[0] == thresholds[1]
    assert [len(s) for s in shown] == [4, 4]  # in one place, and by three nodes alone
    for one, other in zip(*shown, strict=True):
        for name in ("train", "benign", "attacks"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_only_supervised_baselines_see_attacks_of_the_training_part() -> None:
    assert [spec.name for spec in BASELINES.values() if spec.supervised] == ["random-forest"]
    _Seen.shown = []
    judge(
        Bench.load(config_from("nsl-kdd", {"qubits": 3, "backend": "ideal"}), None),
        Spec("seen", "", lambda model, epochs: _Seen()),
        isolated=False,
    )
    assert [len(data.attacks) for data in _Seen.shown] == [0]


def test_whoever_chooses_hyperparameters_does_not_open_the_test_file(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.benchmarks import baseline_tuning

    opened: list[str] = []
    real = fetch.read_bytes

    def read(path: Path) -> bytes:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(fetch, "read_bytes", read)
    monkeypatch.setattr("sys.argv", ["tune", "--data", str(data_dir), "--seeds", "1", "--model", "pca"])
    baseline_tuning.main()
    assert opened == ["KDDTrain+_20Percent.txt"]
    assert "pca" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "runs"),
    [(["--only", "waves", "near"], 6), (["--shift", "--only", "several, eight"], 9)],
    ids=["as they are", "services left out"],
)
def test_the_model_is_chosen_on_records_of_no_reported_holdout(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path, tmp_path: Path, asked: list[str], runs: int
) -> None:
    """By file and line, and by the files that are opened: whatever a candidate is run on is of the pool."""
    from tests.benchmarks import tune_detection

    opened: list[str] = []
    shown: list[Places] = []
    real = fetch.read_bytes

    def read(path: Path) -> bytes:
        opened.append(path.name)
        return real(path)

    def run(records: Records, settings: Any, seed: int, left: Any) -> dict[str, Any]:
        assert (left is not None) == (asked[0] == "--shift" and len(shown) % 3 > 0)
        shown.append(places(records))
        return {"seconds": 0.0, "energy": 0.0, "variants": {}}

    monkeypatch.setattr(fetch, "read_bytes", read)
    monkeypatch.setattr(tune_detection, "run", run)
    for summary in ("summarise", "summarise_shift"):
        monkeypatch.setattr(tune_detection, summary, lambda rows: None)
    out = str(tmp_path / "rows.jsonl")
    monkeypatch.setattr("sys.argv", ["tune", "--data", str(data_dir), "--out", out, *asked])
    tune_detection.main()
    assert opened == ["KDDTrain+_20Percent.txt"]
    assert len(shown) == runs
    pool = shown[0]
    assert pool
    assert all(other == pool for other in shown)
    for seed in tune_detection.REPORTED:
        study = load(seed=seed)
        assert not pool & places(study.holdout)
        assert not pool & places(study.test)
        assert pool <= places(study.dataset.train)
