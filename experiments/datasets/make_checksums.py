"""Writes the table of checksums that locates edits: `python -m experiments.datasets.make_checksums --data DIR`.

Run once on the official files; the output is the same byte for byte whenever the files are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.datasets.nsl_kdd import read, read_bytes
from experiments.datasets.official import TABLE, TEST, TRAIN_20, column_sums, line_sums


def main() -> None:
    """Reads the two official files in --data and writes the table beside this module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the official files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / TABLE)
    options = parser.parse_args()
    arrays: dict[str, npt.NDArray[Any]] = {}
    for official in (TRAIN_20, TEST):
        path = options.data / official.name
        read(path)
        lines = read_bytes(path).decode("ascii").removesuffix("\n").split("\n")
        arrays[f"{official.name}/lines"] = line_sums(lines)
        arrays[f"{official.name}/columns"] = column_sums(lines)
    # Through an open file, for numpy adds ".npz" to a name that lacks it.
    with options.out.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
