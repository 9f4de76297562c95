"""What the contract would cost with a thousand nodes: `python -m tests.benchmarks.thousand_nodes [--check 255]`.

Gas is measured for some numbers of nodes and continued: a reveal costs so much, so much a node, and so much a word of
32 grades; a settlement so much, so much a node, and so much a pair of nodes. `--check` measures a larger task too and
prints it beside what was foretold. docs/decisions/0006 reads the tables.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from tests.benchmarks.gas import Costs, play
from tests.benchmarks.rounds_cost import MODEL_BYTES

SIZES = (10, 32, 64, 96)
MOST_PER_TRANSACTION = 1 << 24
"""What a transaction may take on Ethereum since EIP-7825."""
BLOCK_GAS, BLOCK_SECONDS = 60_000_000, 12
BLOB_BYTES = 131_072


@dataclass(frozen=True)
class Gas:
    """Gas by number of nodes, continued from measurements."""

    open: NDArray[np.float64]
    submit: float
    commit: float
    reveal: NDArray[np.float64]
    settle: NDArray[np.float64]

    @classmethod
    def of(cls, measured: list[Costs]) -> Gas:
        """Fit the second round's costs: from then on every slot is in use."""
        n = np.array([c.nodes for c in measured], float)
        words = np.ceil(n / 32)
        one = np.ones_like(n)

        def fit(columns: list[NDArray[np.float64]], values: list[int]) -> NDArray[np.float64]:
            found: NDArray[np.float64] = np.linalg.lstsq(np.stack(columns, 1), np.array(values, float), rcond=None)[0]
            return found

        return cls(
            open=fit([one, n], [c.opening for c in measured]),
            submit=float(np.mean([np.mean(c.submit[2]) for c in measured])),
            commit=float(np.mean([np.mean(c.commit[2]) for c in measured])),
            reveal=fit([one, n, words], [int(np.mean(c.reveal[2])) for c in measured]),
            settle=fit([one, n, n * n], [sum(c.settle[2]) for c in measured]),
        )

    def one_reveal(self, graded: int) -> float:
        """A node that gives so many grades."""
        return float(self.reveal @ [1, graded, np.ceil(graded / 32)])

    def settlement(self, nodes: int, graders: int) -> float:
        """Nodes of which each is graded by so many."""
        return float(self.settle @ [1, nodes, nodes * graders])

    def round(self, nodes: int, graders: int) -> tuple[float, float]:
        """All nodes' own transactions of a round, and its settlement."""
        own = nodes * (self.submit + self.commit + self.one_reveal(graders))
        return own, self.settlement(nodes, graders)


def _million(gas: float) -> str:
    return f"{gas / 1e6:,.1f}"


def by_nodes(gas: Gas) -> str:
    """What grows how, with the rules as they are."""
    lines = [
        "| nodes | open, M gas | reveal, gas a node | grades, bytes a round | settle, M gas | pages, M gas each | "
        "all of a round, M gas | blocks | minutes | models read, GB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for n in (50, 100, 255, 500, 1000):
        own, settle = gas.round(n, n)
        total = own + settle
        pages = -(-n // 32)
        blocks = total / BLOCK_GAS
        lines.append(
            f"| {n} | {_million(float(gas.open @ [1, n]))} | {gas.one_reveal(n):,.0f} | {n * n:,} | "
            f"{_million(settle)} | {pages} x {_million(settle / pages)} | {_million(total)} | {blocks:,.1f} | "
            f"{blocks * BLOCK_SECONDS / 60:,.1f} | {n * n * MODEL_BYTES / 1e9:,.1f} |"
        )
    return "\n".join(lines)


def ways_out(gas: Gas, n: int = 1000) -> str:
    """A round of a thousand nodes, done otherwise."""
    everybody = gas.round(n, n)
    sampled = gas.round(n, 31)
    groups = -(-n // 32)
    small = gas.round(32, 32)
    sharded = (groups * small[0] + small[0], groups * small[1] + small[1])
    pair = float(gas.settle[2])
    own = n * (gas.submit + gas.commit)  # grades and their openings are posted off the chain
    # A dispute shows one node's column of grades, with a Merkle path to each grader's row, and takes one median.
    dispute = n * (pair / 2 + 16 * (1 + 32 * np.ceil(np.log2(n))) + 60 * np.ceil(np.log2(n)))
    rows: list[tuple[str, float, float, str]] = [
        ("everybody grades everybody", *everybody, f"{n * n:,}"),
        ("31 graders a node, drawn by lot", *sampled, f"{31 * n:,}"),
        (f"{groups} groups of 32, and their delegates", *sharded, f"{(groups + 1) * 32 * 32:,}"),
        (
            "medians off the chain, disputed where false",
            own,
            120_000.0,
            f"{n * n:,} (in {-(-n * n // BLOB_BYTES)} blobs)",
        ),
    ]
    lines = [
        "| way | nodes' own transactions, M gas | settlement, M gas | blocks | bytes of grades |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, mine, settle, grades in rows:
        lines.append(
            f"| {name} | {_million(mine)} | {_million(settle)} | {(mine + settle) / BLOCK_GAS:,.1f} | {grades} |"
        )
    lines += ["", f"One dispute over a median of {n} grades: {_million(float(dispute))} M gas."]
    return "\n".join(lines)


def captured(n: int = 1000, graders: int = 31) -> str:
    """How often hostile nodes hold the median of a node whose graders are drawn by lot."""
    lines = [f"| hostile | a node's median is theirs | such nodes among {n} in a round |", "|---:|---:|---:|"]
    for percent in (10, 20, 30, 40):
        hostile = n * percent // 100
        # Half of the weight or more decides, and all weigh the same: the worst case, that of a first settlement.
        chance = float(hypergeom.sf(graders // 2, n - 1, hostile, graders))
        lines.append(f"| {percent} % | {chance:.2g} | {n * chance:.2g} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.thousand_nodes", description=__doc__)
    parser.add_argument("--check", type=int, default=0, help="measure a task of so many nodes (at most 255) too")
    options = parser.parse_args()
    gas = Gas.of([play(n, most=32) for n in SIZES])
    print(f"Measured with {', '.join(map(str, SIZES))} nodes; gas:")
    print(f"- submit {gas.submit:,.0f}; commit {gas.commit:,.0f}")
    print("- reveal {:,.0f} + {:,.0f} a node + {:,.0f} a word of 32".format(*gas.reveal))
    print("- settle {:,.0f} + {:,.0f} a node + {:,.1f} a pair".format(*gas.settle))
    print("- open {:,.0f} + {:,.0f} a node\n".format(*gas.open))
    if options.check:
        found = play(options.check, rounds=2, most=32)
        n = options.check
        print("| | foretold | measured |\n|---|---:|---:|")
        print(f"| {n} nodes: reveal, round 2 | {gas.one_reveal(n):,.0f} | {np.mean(found.reveal[2]):,.0f} |")
        print(f"| {n} nodes: settle, round 2 | {gas.settlement(n, n):,.0f} | {sum(found.settle[2]):,} |")
        print(f"| {n} nodes: dearest page | | {max(g for pages in found.settle.values() for g in pages):,} |\n")
    print(by_nodes(gas) + "\n")
    print(ways_out(gas) + "\n")
    print(captured())


if __name__ == "__main__":
    main()
