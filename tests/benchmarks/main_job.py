"""Where the time of the main job goes: `python -m tests.benchmarks.main_job [OPTIONS OF qrun experiment]`.

Runs `qrun --help` and the default command in processes of their own, and prints wall-clock seconds by phase, the rest
(start of Python, imports, compiling), and the peak memory of the process. At the end one epoch of one node, in process,
beside what the peers would take for it (`tests.benchmarks.epoch`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from experiments.settings import ModelSettings
from tests.benchmarks.epoch import print_epoch


def timed(arguments: list[str], env: dict[str, str]) -> tuple[float, float, str]:
    """Wall-clock seconds, peak resident MiB and stdout of a process that has to succeed."""
    with tempfile.TemporaryFile("w+") as out:
        begin = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=out, stderr=subprocess.DEVNULL, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            sys.exit(f"{' '.join(arguments)} failed; run it by hand to see why")
        out.seek(0)
        return seconds, usage.ru_maxrss / 1024, out.read()


def main() -> None:
    """Print the table."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "QRUN_HOME": home}
        command = [sys.executable, "-m", "runner.cli"]
        helps = [timed([*command, "--help"], env)[0] for _ in range(5)]
        wall, peak, out = timed([*command, "experiment", "nsl-kdd", "--json", *sys.argv[1:]], env)
    result: dict[str, Any] = json.loads(out)
    phases = result["seconds"]["phases"]
    steps = result["config"]["rounds"] * result["config"]["nodes"] * result["config"]["model"]["epochs"]
    steps *= result["config"]["model"]["steps_per_epoch"]
    print(f"qrun --help: median {statistics.median(helps):.2f} s of {len(helps)}")
    print(
        f"qrun experiment nsl-kdd {' '.join(sys.argv[1:])}: {result['backend']['name']} "
        f"({result['backend']['engine']}), {result['config']['model']['qubits']} qubits, "
        f"{result['config']['nodes']} nodes, {result['config']['rounds']} rounds, {steps} generator steps; "
        f"data: {result['dataset']['source']}; {os.cpu_count()} cores"
    )
    rows = [*phases.items(), ("imports, compiling, report", wall - sum(phases.values())), ("total", wall)]
    for name, seconds in rows:
        print(f"  {name:<28}{seconds:8.2f} s{100 * seconds / wall:7.1f} %")
    print(f"  a generator step {1000 * phases['training'] / steps:.1f} ms; peak memory {peak:.0f} MiB")
    print_epoch(result["backend"]["name"], ModelSettings.model_validate(result["config"]["model"]))


if __name__ == "__main__":
    main()
