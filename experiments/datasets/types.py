"""Records of network connections, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Records:
    """N connection records in the order of their file.

    Attributes:
        numeric: (N, 38) the numeric columns in schema order, units as in the file.
        categorical: (N, 3) codes of protocol_type, service, flag into the schema's vocabularies.
        attack: (N,) codes of the attack name into the schema's vocabulary; 0 is "normal".
        line: (N,) 1-based line in the file that the record came from: its provenance.
        file: Name of that file.
    """

    numeric: FloatArray
    categorical: IntArray
    attack: IntArray
    line: IntArray
    file: str

    def __len__(self) -> int:
        return len(self.attack)

    @property
    def is_attack(self) -> BoolArray:
        """(N,) True where the record is no normal traffic."""
        return self.attack != 0

    def take(self, index: IntArray | BoolArray) -> Records:
        """The records at `index`, in that order."""
        return Records(self.numeric[index], self.categorical[index], self.attack[index], self.line[index], self.file)


@dataclass(frozen=True)
class Dataset:
    """A training file and a test file, and where they came from.

    `source` is "official" or "stand-in" and goes with every figure; `sha256` maps file name to hash (for the stand-in:
    of the generated columns). `test` is None where it was not asked for.
    """

    name: str
    source: Literal["official", "stand-in"]
    train: Records
    test: Records | None
    sha256: dict[str, str]
