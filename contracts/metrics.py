"""A submission's metrics in one word: six 32-bit numbers, fixed point 1e-6, in the order of METRIC_NAMES.

Each is stored as round(value * 1e6) + 2^31, so that values from -2147 to 2147 fit, negative ones included; the
threshold may be any of them. 0 stands for a metric that is not defined (NaN).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from contracts.errors import LedgerError
from contracts.records import METRIC_NAMES

SCALE = 1_000_000
_OFFSET = 1 << 31
_BITS = 32


def pack_metrics(metrics: Mapping[str, float]) -> int:
    """The word (uint192) of these metrics, the first name in the highest bits.

    Raises:
        LedgerError: a name is missing or unknown, or a value is infinite or out of range.
    """
    if set(metrics) != set(METRIC_NAMES):
        raise LedgerError(f"a submission's metrics are {', '.join(METRIC_NAMES)}; given: {', '.join(sorted(metrics))}.")
    word = 0
    for name in METRIC_NAMES:
        value = float(metrics[name])
        number = 0
        if not math.isnan(value):
            number = round(value * SCALE) + _OFFSET if math.isfinite(value) else 0
            if not 0 < number < 1 << _BITS:
                raise LedgerError(f"metric {name} = {value} does not fit the record: it takes -2147 to 2147.")
        word = word << _BITS | number
    return word


def unpack_metrics(word: int) -> dict[str, float]:
    """The metrics in a word; NaN where one was not defined."""
    out = {}
    for place, name in enumerate(METRIC_NAMES):
        number = word >> _BITS * (len(METRIC_NAMES) - 1 - place) & (1 << _BITS) - 1
        out[name] = (number - _OFFSET) / SCALE if number else math.nan
    return out
