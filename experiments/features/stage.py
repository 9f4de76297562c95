"""What all stages of the agreement have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from experiments.datasets.types import Records
from experiments.features.encoding import ONE_HOT, Columns
from experiments.features.map import FeatureMap

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MAX_RECORDS = 2**24
"""Of all nodes together: with it and the bounds of the stages no sum leaves 63 bits."""


def _no_floats() -> FloatArray:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """What is settled so far, and what is summed next.

    Attributes:
        features: Features of the map to be.
        transcript: Digest of all totals so far, part of the name that a sum goes by.
        records: Benign training records of all nodes (0 before they are counted).
        columns: As in `FeatureMap`, as are mean, sd, centre and components.
        cells: The modal cell of each numeric column in `columns`.
    """

    title: ClassVar[str]

    features: int
    transcript: bytes = b""
    records: int = 0
    columns: Columns = field(default_factory=lambda: Columns((), ((),) * len(ONE_HOT)))
    cells: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    mean: FloatArray = field(default_factory=_no_floats)
    sd: FloatArray = field(default_factory=_no_floats)
    centre: FloatArray = field(default_factory=_no_floats)
    components: FloatArray = field(default_factory=_no_floats)

    @property
    def name(self) -> str:
        """Goes with the masks: it differs wherever anything settled before does, so none is used twice."""
        settled = f"{self.features} {self.transcript.hex()}".encode()
        return f"feature-map/{self.title}/{hashlib.sha256(settled).hexdigest()}"

    @property
    @abstractmethod
    def length(self) -> int:
        """Integers in a contribution."""

    @property
    @abstractmethod
    def bound(self) -> int:
        """Greatest magnitude that one record adds to any of them."""

    @abstractmethod
    def contribution(self, records: Records) -> IntArray:
        """(length,) a node's part of the total."""

    @abstractmethod
    def advance(self, total: IntArray) -> Stage | FeatureMap:
        """The next stage, or the map after the last.

        Raises:
            QrunError: The total cannot be one of contributions within their bounds.
        """

    def settled(self, total: IntArray) -> bytes:
        """The transcript with this stage's total added."""
        return hashlib.sha256(self.transcript + np.ascontiguousarray(total).astype("<i8").tobytes()).digest()

    def require(self, holds: bool, what: str) -> None:
        """Raises QrunError, which says what failed, unless `holds`."""
        if not holds:
            raise QrunError(
                f"the agreement on the feature map failed in stage {self.title!r}: {what}.",
                "A node's contribution was damaged or dishonest, or a node left; start the run anew.",
            )

    def check_bounds(self, total: IntArray) -> None:
        """Raises QrunError for a total that no records can have: masks did not cancel, or somebody lied."""
        self.require(total.shape == (self.length,), "the total has the wrong length")
        limit = self.bound * (self.records or MAX_RECORDS)
        # int64's least value has no magnitude in int64, hence two comparisons.
        self.require(bool((total <= limit).all() and (total >= -limit).all()), "the total is out of its bounds")
