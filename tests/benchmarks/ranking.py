"""How well the estimated fidelity orders devices: `python -m tests.benchmarks.ranking [QUBITS [REPS]]`.

For every packaged device that runs the generator on as many qubits: the estimate (backends/runtime/rank.py), and how
much of the ideal expectation values of all Z and ZZ the exact noisy twin keeps, with idle noise; then Spearman's rank
correlation of the two.
"""

from __future__ import annotations

import sys

from scipy.stats import spearmanr

from backends.catalog import target_names
from circuits.qgan import generator
from tests.backends.runtime.test_rank import judged


def main(qubits: int = 4, reps: int = 4) -> None:
    """Print the table."""
    rows = judged(generator(qubits, reps), [name for name in target_names() if name != "ideal"])
    print("| device | estimated fidelity | kept by the exact twin |\n|---|---|---|")
    for name, estimated, kept in sorted(rows, key=lambda row: -row[1]):
        print(f"| {name} | {estimated:.4f} | {kept:.4f} |")
    correlation = spearmanr([row[1] for row in rows], [row[2] for row in rows]).statistic
    print(f"\n{len(rows)} devices, {qubits} qubits, reps {reps}: Spearman's rank correlation {correlation:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
