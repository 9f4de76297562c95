"""Lines of the form of NSL-KDD that stand in no file of it."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from experiments.datasets.parse import to_text
from experiments.datasets.schema import ATTACKS, COLUMNS, DIFFICULTY_MAX, FLAGS, PROTOCOLS, SERVICES
from experiments.datasets.standin import standin

_WORDS = {"protocol": PROTOCOLS, "service": SERVICES, "state": FLAGS}


@cache
def lines(count: int = 50) -> tuple[str, ...]:
    """The first lines of the stand-in."""
    train = standin(full=False).train
    return tuple(to_text(train.take(train.line[:count] - 1)).splitlines())


@st.composite
def legal_lines(draw: st.DrawFn) -> str:
    """Any line that the schema allows."""
    fields = []
    for column in COLUMNS:
        if column.kind in _WORDS:
            fields.append(draw(st.sampled_from(_WORDS[column.kind])))
        elif column.kind == "rate":
            fields.append(f"{draw(st.integers(0, 100)) / 100:.2f}")
        else:
            fields.append(str(draw(st.integers(column.minimum, column.maximum))))
    return ",".join([*fields, draw(st.sampled_from(ATTACKS)), str(draw(st.integers(0, DIFFICULTY_MAX)))])
