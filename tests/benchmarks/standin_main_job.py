"""The main job's own figures on the stand-in beside those on the real files.

`QRUN_DATA=DIR python -m tests.benchmarks.standin_main_job [--seeds 5]` runs the default experiment on both with the
same seeds, and prints the mean of each figure and the difference in points. Ends with 1 if one exceeds 3 points.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from typing import Any

import qrun
from circuits.errors import QrunError
from experiments.datasets.fetch import locate

LIMIT = 3.0
FIGURES = ("accuracy", "f1", "auroc")


def run(seed: int, data: str, home: str) -> dict[str, Any]:
    """The result of the default experiment; an empty `data` and an empty cache give the stand-in."""
    os.environ.update({"QRUN_HOME": home, "QRUN_DATA": data, "XDG_CACHE_HOME": f"{home}/cache"})
    return qrun.run("nsl-kdd", seed=seed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    data = os.environ.get("QRUN_DATA", "")
    if not data or None in locate(None, False).values():
        sys.exit("QRUN_DATA has to name the folder of the official files")
    runs: dict[str, list[dict[str, Any]]] = {"official": [], "stand-in": []}
    with tempfile.TemporaryDirectory() as home:
        for seed in seeds:
            for source, where in (("official", data), ("stand-in", "")):
                try:
                    result = run(seed, where, home)
                except QrunError as error:
                    sys.exit(str(error))
                if result["dataset"]["source"] != source:
                    sys.exit(f"asked for {source} data and got {result['dataset']['source']}")
                runs[source].append(result["metrics"])
                print(f"seed {seed}, {source}: done", file=sys.stderr)
    print(f"the default experiment, mean of {len(seeds)} seeds (standard deviation)")
    print(f"{'':22}{'official':>18}{'stand-in':>18}{'points apart':>14}")
    worst = 0.0
    for part in ("holdout", "test"):
        for figure in FIGURES:
            values = {source: [r[part][figure] for r in results] for source, results in runs.items()}
            means = {source: statistics.mean(v) for source, v in values.items()}
            spread = {source: statistics.stdev(v) if len(v) > 1 else 0.0 for source, v in values.items()}
            apart = 100 * abs(means["official"] - means["stand-in"])
            worst = max(worst, apart)
            cells = "".join(f"{means[s]:>10.4f} ({spread[s]:.3f})" for s in ("official", "stand-in"))
            print(f"{part + ' ' + figure:<22}{cells}{apart:>14.1f}")
    print(f"largest: {worst:.1f} points, allowed {LIMIT:.0f}")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
