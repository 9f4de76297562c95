from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from experiments.datasets.fit_copula import MIN_SHARE, knots, loadings
from experiments.datasets.fit_standin import MIN_CELL, cells, fit
from experiments.datasets.nsl_kdd import duplicates_of, read
from experiments.datasets.official import TEST, TRAIN_20, TRAIN_FULL
from experiments.datasets.parse import DataFileError, parse, to_text
from experiments.datasets.schema import ATTACKS, NUMERIC, TEST_ONLY
from experiments.datasets.standin import apportion, generate, model, standin
from experiments.datasets.types import Records

DATA = Path(__file__).parents[3] / "experiments" / "datasets"


def test_it_is_the_same_every_time() -> None:
    first, second = standin(full=False), standin(full=False)
    assert first.sha256 == second.sha256
    assert np.array_equal(first.train.numeric, second.train.numeric)
    assert standin(full=True).sha256 != first.sha256
    other = generate(model(), 0, TRAIN_20, seed=1)
    assert not np.array_equal(other.numeric, first.train.numeric)


def test_sizes_and_names_are_those_of_the_files() -> None:
    small, full = standin(full=False), standin(full=True)
    assert (len(small.train), len(small.test)) == (TRAIN_20.records, TEST.records)
    assert (len(full.train), len(full.test)) == (TRAIN_FULL.records, TEST.records)
    assert small.source == full.source == "stand-in"
    assert set(small.sha256) == {small.train.file, small.test.file}
    assert all("stand-in" in name for name in small.sha256)
    assert small.train.line.tolist() == list(range(1, 25_193))
    assert (DATA / "standin.npz").stat().st_size < 400_000


@pytest.mark.parametrize("full", [False, True])
def test_every_record_is_legal(full: bool, tmp_path: Path) -> None:
    dataset = standin(full=full)
    for records in (dataset.train, dataset.test):
        text = to_text(records)
        back = parse(text.encode("ascii"), "stand-in")
        assert np.array_equal(back.numeric, records.numeric)
        assert np.array_equal(back.categorical, records.categorical)
        assert np.array_equal(back.attack, records.attack)
        if not full:
            # All but the hash: it does not pass for the official file.
            path = tmp_path / TEST.name
            path.write_text(text)
            with pytest.raises(DataFileError, match="not what was published"):
                read(path)


def test_labels_are_mixed_as_in_the_files() -> None:
    dataset = standin(full=False)
    assert int(np.sum(~dataset.train.is_attack)) == 13_449
    assert int(np.sum(~dataset.test.is_attack)) == 9_711
    assert not {ATTACKS[code] for code in dataset.train.attack} & TEST_ONLY
    assert {ATTACKS[code] for code in dataset.test.attack} > TEST_ONLY
    # Random order: a tenth of the file is mixed as the whole.
    assert abs(dataset.train.is_attack[:2500].mean() - dataset.train.is_attack.mean()) < 0.04


def test_the_packed_model_is_sound() -> None:
    packed = model()
    ends = np.cumsum(packed["knots_of"].ravel())
    assert ends[-1] == len(packed["knots_p"]) == len(packed["knots_v"])
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        p, v = packed["knots_p"][start:end].astype(int), packed["knots_v"][start:end].astype(int)
        assert np.all(np.diff(p) >= 0)
        assert np.all(np.diff(v) >= 0)
        assert len(p) == 1 or (p[0] == 0 and p[-1] == 65_535)
    active = (packed["knots_of"] > 1).sum(axis=1)
    assert len(packed["loadings"]) == int(np.sum(active * packed["factors_of"]))
    assert np.abs(packed["loadings"].astype(int)).max() <= 32_767
    # Counts of at least five, but where a component has one combination of words.
    single = Counter(packed["words"][:, 0].tolist())
    assert all(row[4] >= MIN_SHARE or single[row[0]] == 1 for row in packed["words"].tolist())


def test_apportion_sums_and_keeps_whole_numbers() -> None:
    assert apportion([3, 1, 1], 5).tolist() == [3, 1, 1]
    assert apportion([1, 1, 1], 10).tolist() == [4, 3, 3]
    assert apportion([5, 0, 5], 3).tolist() == [2, 0, 1]


def test_knots_keep_shared_values_and_blur_the_others() -> None:
    values = np.array([0.0] * 60 + [100.0] * 20 + list(range(1000, 1020)))
    p, v = knots(values, [values])
    assert v[p < 0.6].max() == 0.0
    assert set(v[(p > 0.6) & (p < 0.8)].tolist()) <= {100.0}
    tail = v[v > 100]
    assert len(tail) <= 20 // MIN_SHARE + 2
    assert abs(np.interp(0.9, p, v) - 1010) < 5
    drawn = np.interp((np.arange(10_000) + 0.5) / 10_000, p, v)
    assert abs(np.mean(drawn == 0.0) - 0.6) < 0.01
    assert abs(np.mean(np.abs(drawn - 100.0) < 1e-9) - 0.2) < 0.01


def test_a_lone_value_is_in_no_knot() -> None:
    values = np.array([0.0] * 50 + [123_456_789.0])
    _, v = knots(values, [values])
    assert v.tolist() == [0.0]
    many = np.concatenate([values, np.full(4, 1000.0), np.full(4, 77_777.0)])
    _, v = knots(values, [values, many])
    assert 1000 < v.max() < 1_000_000


def test_loadings_give_back_a_correlation_through_shared_values() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    numeric = np.zeros((400, len(NUMERIC)))
    # Both mostly zero, as many columns are.
    numeric[:, 1:3] = np.where(z > 0.5, np.round(np.exp(3 + z)), 0.0)
    records = Records(numeric, np.zeros((400, 3), np.int64), np.zeros(400, np.int64), np.arange(400), "made up")
    functions = [knots(column, [column]) for column in numeric.T]
    matrix = loadings(records, functions, np.ones(len(NUMERIC)))
    assert matrix.shape == (2, 2)
    assert np.all(np.sum(matrix**2, axis=1) <= 1 + 1e-9)
    assert 0.65 < float(matrix[0] @ matrix[1]) < 0.95


def test_no_component_is_fitted_on_few_records(data_dir: Path) -> None:
    files = read(data_dir / TRAIN_20.name), read(data_dir / TEST.name)
    supports = [len(cell.fitted_on) for cell in cells(files)]
    assert min(supports) >= MIN_CELL
    assert len(supports) == len(model()["source"])


def test_matches_with_real_records_are_few_and_of_frequent_kinds(data_dir: Path) -> None:
    """Vectors equal to a real one on all 41 features.

    Some of them any sample of this traffic has: 118 of KDDTest+'s records (0.5 %) equal one of the training file,
    though each file was rid of its repetitions. The stand-in may have 2.5 %, and none of an attack so rare (below 30
    records) that a match could only be remembered; the slow test below says why the matches are no memory.
    """
    real, drawn = (read(data_dir / TRAIN_20.name), read(data_dir / TEST.name)), standin(full=False)
    for records, others in ((drawn.train, real), (drawn.test, real)):
        match = duplicates_of(others[0], records) | duplicates_of(others[1], records)
        assert match.mean() < 0.025
        sizes = np.bincount(np.concatenate([other.attack for other in others]), minlength=len(ATTACKS))
        assert sizes[records.attack[match]].min() >= MIN_CELL


@pytest.mark.slow
def test_records_left_out_of_the_fit_are_matched_about_as_often(data_dir: Path) -> None:
    """Membership: a model fitted on every other record hits the records that it has never seen nearly as often.

    What both halves share explains those hits: small, frequent kinds of traffic. The excess over them bounds what the
    model remembers.
    """
    real = read(data_dir / TRAIN_20.name), read(data_dir / TEST.name)
    seen = tuple(records.take(records.line % 2 == 0) for records in real)
    unseen = tuple(records.take(records.line % 2 == 1) for records in real)
    packed = fit((seen[0], seen[1]))
    again = fit((seen[0], seen[1]))
    assert all(np.array_equal(packed[name], again[name]) for name in packed)
    hits = {"seen": 0, "unseen": 0, "benign seen": 0, "benign unseen": 0}
    for file, official in enumerate((TRAIN_20, TEST)):
        drawn = generate(packed, file, official)
        for name, part in (("seen", seen[file]), ("unseen", unseen[file])):
            match = duplicates_of(part, drawn)
            hits[name] += int(match.sum())
            hits[f"benign {name}"] += int((match & ~drawn.is_attack).sum())
    print(json.dumps(hits))
    assert hits["unseen"] > 0
    assert hits["seen"] < 2 * hits["unseen"]
    assert hits["benign seen"] < 2 * hits["benign unseen"]
    assert hits["seen"] - hits["unseen"] < 0.005 * (TRAIN_20.records + TEST.records)
