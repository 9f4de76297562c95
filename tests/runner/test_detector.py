"""The detector's file: the same bytes for the same detector, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.errors import QrunError
from runner.detector import Detector

CID = "bafkreidtywkhhbpp5d4rkbjccux2fedf4gegkjj3touzaen2xlyvhmwbui"


def made(seed: int = 0) -> Detector:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 9, 16)
    score[0] += 1
    parts = np.stack([rng.permutation(score), rng.permutation(score)])
    thresholds = {"label_free": 1.5, "validated": float(rng.random())}
    return Detector("0" * 64, CID, CID, rng.uniform(-1, 1, (5, 3)), parts, score, rng.integers(0, 9, 16), thresholds)


@given(st.integers(0, 99))
def test_a_file_gives_the_detector_back_bit_for_bit(seed: int) -> None:
    one = made(seed)
    other = Detector.from_bytes(one.to_bytes())
    assert other.to_bytes() == one.to_bytes()
    np.testing.assert_array_equal(other.samples, one.samples)
    assert other.thresholds == one.thresholds


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "qrun-detector/2"),
        ("model", "../../etc/passwd"),
        ("samples", {"shape": [5, 4], "values": "AAAA"}),
        ("samples", {"shape": [-1, 3], "values": "AAAA"}),
        ("samples", None),
        ("parts", [[1, 2], [3]]),
        ("parts", [[1.5]]),
        ("score", [-1] * 16),
        ("score", [2**70] * 16),
        ("attacks", [1]),
        ("thresholds", {"label_free": "nan", "validated": "0x1p0"}),
        ("thresholds", {"label_free": "0x1p0"}),
    ],
)
def test_what_is_no_detector_is_refused(key: str, value: object) -> None:
    body = {**json.loads(made().to_bytes()), key: value}
    with pytest.raises(QrunError, match="the detector file is refused"):
        Detector.from_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    with pytest.raises(QrunError):
        Detector.from_bytes(data)


def test_samples_that_are_not_finite_are_refused() -> None:
    samples = made().samples.copy()
    samples[0, 0] = np.inf
    with pytest.raises(QrunError, match="do not fit"):
        Detector.from_bytes(replace(made(), samples=samples).to_bytes())
    with pytest.raises(QrunError, match="canonical"):
        Detector.from_bytes(made().to_bytes() + b"\n")
