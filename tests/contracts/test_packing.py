"""A submission's metrics in one word."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import LedgerError
from contracts.metrics import pack_metrics, unpack_metrics
from contracts.records import METRIC_NAMES

value = st.one_of(st.floats(-2000, 2000), st.just(math.nan))


@given(st.tuples(*[value] * 6))
def test_values_go_round_to_a_millionth(values: tuple[float, ...]) -> None:
    metrics = dict(zip(METRIC_NAMES, values, strict=True))
    word = pack_metrics(metrics)
    assert 0 <= word < 1 << 192
    for name, found in unpack_metrics(word).items():
        if math.isnan(metrics[name]):
            assert math.isnan(found)
        else:
            assert abs(found - metrics[name]) <= 0.5000001e-6
    assert pack_metrics(unpack_metrics(word)) == word


def test_the_layout() -> None:
    metrics = dict.fromkeys(METRIC_NAMES, 0.0) | {"accuracy": -0.000001, "threshold": 1.5}
    assert pack_metrics(metrics).to_bytes(24, "big").hex() == "7fffffff" + "80000000" * 4 + "8016e360"


@pytest.mark.parametrize("bad", [math.inf, -math.inf, 2148.0, -2148.0, 1e30])
def test_what_does_not_fit_is_refused(bad: float) -> None:
    with pytest.raises(LedgerError, match="metric f1"):
        pack_metrics(dict.fromkeys(METRIC_NAMES, 0.5) | {"f1": bad})


def test_names_are_those_agreed() -> None:
    with pytest.raises(LedgerError, match="accuracy"):
        pack_metrics({"accuracy": 0.5})
    with pytest.raises(LedgerError, match="loss"):
        pack_metrics(dict.fromkeys((*METRIC_NAMES, "loss"), 0.5))
