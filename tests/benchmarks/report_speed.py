"""How long a report of many finished runs takes: `python -m tests.benchmarks.report_speed [--runs 75]`.

A few small runs are played and evaluated, in a home of their own; the others are their copies under other seeds, whole
with manifests and digests, so that they are read and checked as any run is. What is timed is `qrun report` itself, in a
process of its own, as a user starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runner.compare.evaluation import FOLDER, digest_of, keep
from runner.compare.work import evaluate_missing
from runner.config import RunConfig, build_config
from runner.options import config_from
from runner.places import Places
from runner.run import start
from runner.run_folder import read_result
from runner.store import RunIndex, RunInfo

BACKENDS = ("ideal", "fake_manila", "fake_kyiv", "fake_torino", "fake_fez")
SMALL: dict[str, Any] = {"qubits": 4, "reps": 2, "rounds": 5, "model": {"steps_per_epoch": 5, "samples": 128}}


def main() -> None:
    """Make the runs, report on them, and say how long it took."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=75)
    options.add_argument("--data", type=Path, default=None)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="qrun-") as home:
        os.environ["QRUN_HOME"] = home
        each = -(-asked.runs // len(BACKENDS))
        names = [name for backend in BACKENDS for name in runs_on(backend, each, asked.data)][: asked.runs]
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "runner.cli", "report", *names, "--no-evaluate", "--out", f"{home}/report"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, own = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"report of {len(names)} finished runs: {wall:.1f} s, of these {own.ru_utime + own.ru_stime:.1f} s of CPU"
        )


def runs_on(backend: str, count: int, data: Path | None) -> list[str]:
    """One run, evaluated, and its copies under other seeds."""
    config = config_from("nsl-kdd", {**SMALL, "backend": backend, "device": "cpu"})
    outcome = start(config, Places(data))
    evaluate_missing(RunInfo(outcome.run, outcome.path, 0.0, "finished"), [config], data)
    return [outcome.run, *(copied(outcome.path, config, seed) for seed in range(1, count))]


def copied(path: Path, config: RunConfig, seed: int) -> str:
    """The run again, as one of another seed."""
    other = build_config({**config.model_dump(mode="json"), "seed": seed})
    result, manifest = read_result(path), json.loads((path / "config.json").read_text())
    about = {"config": other.model_dump(mode="json"), "config_digest": other.digest.hex()}
    index = RunIndex()
    try:
        info = index.create(f"copy-{config.backend}-{seed}", None, {**manifest, **about})
    finally:
        index.close()
    shutil.copytree(path, info.path, dirs_exist_ok=True)
    shutil.rmtree(info.path / FOLDER)
    (info.path / "config.json").write_text(json.dumps({**manifest, **about, "run": info.run}))
    made = {**result, **about, "run": info.run}
    (info.path / "result.json").write_text(json.dumps(made))
    evaluation = json.loads(next((path / FOLDER).iterdir()).read_text())
    keep(info.path, {**evaluation, "digest": digest_of(made, other), "run": info.run})
    return info.run


if __name__ == "__main__":
    main()
