"""What a peer in a process of its own takes: memory, and seconds a round besides training, by number of peers.

    python -m tests.benchmarks.peer_cost --peers 3,5,10 --rounds 3

Starts anvil, a js-ipfs daemon and so many `qrun node` on this machine. Seconds are the processor's, for chain, grading,
validation and witness, those of the set-up included; memory is the most that a process held (resident, with shared
libraries).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.soak.__main__ import asked_of, begin, play


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 where all came to their end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="3,5,10", help="numbers of peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--schedules", default="sync,async")
    parser.add_argument("--whole", action="store_true", help="the default model on fake_kyiv in place of a tiny one")
    asked = parser.parse_args(arguments)
    print(f"{os.cpu_count()} cores, {asked.rounds} rounds")
    print(f"{'schedule':10} {'peers':>5} {'s a round, median':>18} {'worst':>7} {'MB, median':>11} {'worst':>6}")
    whole = True
    for schedule in asked.schedules.split(","):
        for peers in map(int, asked.peers.split(",")):
            reports = played(schedule, peers, asked.rounds, whole=asked.whole)
            whole &= len(reports) == peers
            seconds = sorted(r["seconds"]["besides_training_a_round"] for r in reports)
            memory = sorted(r["memory_mb"] for r in reports)
            middle = len(reports) // 2
            times = f"{seconds[middle]:18.2f} {seconds[-1]:7.2f}"
            print(f"{schedule:10} {peers:5} {times} {memory[middle]:11} {memory[-1]:6}", flush=True)
    return 0 if whole else 1


def played(schedule: str, peers: int, rounds: int, *, whole: bool) -> list[dict[str, Any]]:
    """The reports of a task that was played in peace."""
    words = ["--nodes", str(peers), "--rounds", str(rounds), "--schedule", schedule]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True)))
        os.environ["QRUN_HOME"] = str(folder / "home")
        soak, _, _ = begin(asked_of(words), folder, stack, quiet=True, model={} if whole else None)
        play(soak, None, 1800)
        return [node.report for node in soak.nodes if node.report is not None]


if __name__ == "__main__":
    sys.exit(main())
