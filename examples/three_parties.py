"""Three parties on one machine, each in a process of its own: a chain, an IPFS daemon, three nodes, and an audit.

    python -m examples.three_parties                      # in step; the defaults of `qrun experiment nsl-kdd`
    python -m examples.three_parties --schedule async     # nobody waits for anybody
    python -m examples.three_parties --config examples/small.toml --rounds 2 --compare

Starts anvil and js-ipfs from npm packages on the loopback address (fetched once), makes three keystores, opens a task,
has all three join it, starts three `qrun node`, and ends with `qrun verify` (its exit code is this one's). With
--compare the same run is played in one process, and the models' CIDs are held against each other.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contracts.chain import connect
from tests.servers import ANVIL_KEY, IpfsNode, anvil_node

QRUN = [sys.executable, "-m", "runner.cli"]
GAS = 60_000_000
"""What each account is given the money for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it; the exit code."""
    asked = _asked(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="three-parties-")))
        os.environ.setdefault("QRUN_HOME", str(folder / "home"))
        print("starting anvil and an IPFS daemon ...", flush=True)
        chain = stack.enter_context(anvil_node(folder))
        (folder / "ipfs").mkdir()
        daemon = stack.enter_context(IpfsNode.init(folder / "ipfs").daemon())
        where = ["--chain", chain, "--ipfs", daemon]
        password = folder / "password"
        password.write_text(secrets.token_urlsafe(24) + "\n")
        password.chmod(0o600)
        keys = [folder / f"party-{i}.json" for i in range(asked.nodes)]
        for key in keys:
            qrun("key", "new", key, "--password-file", password)
        addresses = [json.loads(key.read_text())["address"] for key in keys]
        addresses = [a if a.startswith("0x") else f"0x{a}" for a in addresses]
        with connect(chain) as opened:
            opened.fund(addresses, ANVIL_KEY, gas_each=GAS)
        of_run = ["--config", asked.config] if asked.config else []
        of_run += ["--backend", asked.backend, "--rounds", asked.rounds]
        allow = [part for address in addresses for part in ("--allow", address)]
        mine = ["--key", keys[0], "--password-file", password]
        terms = ["--schedule", asked.schedule, "--source", asked.source]
        told = qrun("task", "open", "nsl-kdd", *of_run, *allow, *terms, *where, *mine, "--json")
        task = json.loads(told)["task"]
        for key in keys:
            qrun("task", "join", "--task", task, *where, "--key", key, "--password-file", password, "--json")
        reports = play(task, where, keys, password, folder)
        for report in reports:
            holdout, node = report["metrics"]["holdout"], report["node"]["id"]
            print(
                f"node {node}: {report['final']['cid']}  hold-out {holdout['accuracy']:.4f} {holdout['f1']:.4f} "
                f"{holdout['auroc']:.4f}  {report['seconds']['besides_training_a_round']} s a round besides training, "
                f"{report['memory_mb']} MB",
                flush=True,
            )
        same = len({report["final"]["cid"] for report in reports}) == 1
        print("one final model" if same else "THE FINAL MODELS DIFFER", flush=True)
        if asked.compare:
            same &= compare(reports, [*of_run, "--nodes", asked.nodes], folder)
        done = subprocess.run([*QRUN, "verify", task, *map(str, where)], check=False)
        return done.returncode or int(not same)


def qrun(*words: Any) -> str:
    """Run a command of qrun, shown as it would be typed; its stdout."""
    shown = [str(word) for word in words]
    print("$ qrun " + shlex.join(shown), flush=True)
    done = subprocess.run([*QRUN, *shown], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def play(
    task: str, where: Sequence[Any], keys: Sequence[Path], password: Path, folder: Path, *more: Any
) -> list[dict[str, Any]]:
    """All nodes at once, each in a process of its own; their reports."""
    begin, nodes = time.monotonic(), []
    for i, key in enumerate(keys):
        words = ["node", "--task", task, *where, "--key", key, "--password-file", password, *more]
        words += ["--out", folder / f"node-{i}", "--json"]
        shown = [str(word) for word in words]
        print("$ qrun " + shlex.join(shown) + " &", flush=True)
        log = (folder / f"node-{i}.log").open("wb")
        nodes.append(subprocess.Popen([*QRUN, *shown], stdout=subprocess.PIPE, stderr=log, text=True))
    found = []
    for i, node in enumerate(nodes):
        out, _ = node.communicate()
        if node.returncode:
            print((folder / f"node-{i}.log").read_text()[-2000:], file=sys.stderr)
            for other in nodes:
                other.kill()
            raise SystemExit(node.returncode)
        found.append(json.loads(out))
    print(f"{len(nodes)} nodes have ended after {time.monotonic() - begin:.0f} s", flush=True)
    return found


def compare(reports: Sequence[dict[str, Any]], of_run: Sequence[Any], folder: Path) -> bool:
    """Whether one process comes to the same models."""
    result = json.loads(qrun("experiment", "nsl-kdd", *of_run, "--out", folder / "one-process", "--json"))
    alone = {(n["id"], r["number"]): n["cid"] for r in result["rounds"] for n in r["nodes"]}
    apart = {(r["node"]["id"], m["round"]): m["cid"] for r in reports for m in r["models"]}
    same = alone == apart and {r["final"]["cid"] for r in reports} == {result["final"]["cid"]}
    same &= all(report["metrics"] == result["metrics"] for report in reports)
    print(
        f"in one process: {result['final']['cid']}: "
        + (f"all {len(alone)} models and the metrics are the same" if same else "IT DIFFERS"),
        flush=True,
    )
    return same


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=("sync", "async"), default="sync")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="fake_kyiv")
    parser.add_argument("--config", help="TOML file of values")
    parser.add_argument(
        "--source",
        choices=("official", "stand-in"),
        default="official" if os.environ.get("QRUN_DATA") else "stand-in",
        help="data of the task; official where QRUN_DATA names its folder",
    )
    parser.add_argument("--compare", action="store_true", help="also play it in one process (in step only)")
    asked = parser.parse_args(arguments)
    if asked.compare and asked.schedule == "async":
        parser.error("--compare: one process plays in step; leave --schedule async out")
    return asked


if __name__ == "__main__":
    sys.exit(main())
