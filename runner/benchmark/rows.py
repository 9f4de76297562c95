"""Rows of the tables: a model and a seed, with all figures; and the file of finished ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.detection import ATTACK_FAMILIES, PARTS, THRESHOLDS
from experiments.metrics import Metrics
from runner.row_file import RowFile

METRICS = tuple(Metrics.__dataclass_fields__)
RATES = tuple(name for name in METRICS if name != "threshold")


@dataclass(frozen=True)
class Row:
    """One model, trained and measured with one seed.

    Attributes:
        model: Its name.
        seed: Deals the data and starts the model.
        detection: By part (None: not scored) and threshold, as in a run's result.
        isolated: By part, the mean of nodes alone; None where there is none.
        parameters: Of its generator; None where it has none.
        seconds: That it took, data and nodes alone set aside.
        run: The run that it is from, for those that are.
        membership: What its published models give away (runner/benchmark/membership.py); None where none is published.
    """

    model: str
    seed: int
    detection: dict[str, Any]
    isolated: dict[str, Any] | None
    parameters: int | None
    seconds: float
    run: str | None = None
    membership: dict[str, Any] | None = None

    def figure(self, part: str, threshold: str, name: str) -> float | None:
        """A figure, None where there is none; names of families are recalls."""
        found = self.detection.get(part)
        if found is None:
            return None
        figures = found[threshold]
        value = figures["recall_by_family"][name] if name in ATTACK_FAMILIES else figures[name]
        return None if value is None else float(value)


def open_rows(path: Path | None, about: Mapping[str, Any]) -> RowFile[Row]:
    """The file of finished rows."""
    return RowFile(path, about, read=read, write=asdict, key=lambda row: (row.model, row.seed))


def read(values: dict[str, Any]) -> Row:
    """A row from a line of the file.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    row = Row(**values)
    sound = isinstance(row.model, str) and type(row.seed) is int and isinstance(row.seconds, float | int)
    sound = sound and type(row.parameters) in (int, type(None)) and isinstance(row.run, str | None)
    sound = sound and set(row.detection) == set(PARTS) and row.detection["holdout"] is not None
    if not sound:
        raise ValueError("not a row")
    for part in row.detection.values():
        if part is None:
            continue
        if set(part) != set(THRESHOLDS):
            raise ValueError("not a row")
        for figures in part.values():
            rates = [figures[name] for name in (*RATES, "false_positive_rate")]
            rates += [v for v in (figures["recall_by_family"][f] for f in ATTACK_FAMILIES) if v is not None]
            if not all(isinstance(v, float | int) and 0 <= v <= 1 for v in rates):
                raise ValueError("not a row")
    if row.membership is not None:
        chances = [row.membership["final"], *row.membership["rounds"]]
        if not all(isinstance(v, float) and 0 <= v <= 1 for v in chances):
            raise ValueError("not a row")
    for part in (row.isolated or {}).values():
        if not all(isinstance(v, float | int) and 0 <= v <= 1 for v in part.values()):
            raise ValueError("not a row")
    return row
