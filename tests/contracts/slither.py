"""Slither, the static analyser, over FederatedRounds.sol with the pinned compiler: `python -m tests.contracts.slither`.

Slither does not install beside this project (it wants another web3): `pip install slither-analyzer` into an environment
of its own, and have it in the PATH or name it in SLITHER. It asks for an executable solc that speaks --combined-json,
which npm's soljson.js does not; this module plays that solc too. EXPLAINED says of each check that finds something why
it is let stand; what another check finds has to be mended.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from contracts.build import SETTINGS, SOLC, source_path
from contracts.npm import fetch_package, node_tools

EXPLAINED = {
    "assembly": "memory used again between the nodes of a page, and words of `bytes` read, written and cut: each block "
    "is a line or two, touches memory that the function has made, and is played against the Python model.",
    "cyclomatic-complexity": "settlement and rollback are one rule each; cut apart they would read worse.",
    "divide-before-multiply": "lengths are rounded up to whole words of 32 nodes on purpose.",
    "incorrect-equality": "no equality is with a balance: those found compare numbers, sets and flags that only the "
    "contract sets, and are marked because a deadline's time flows into the same slot.",
    "low-level-calls": "withdraw pays with `call`, so that accounts that are contracts can be paid; what is owed is "
    "marked as paid before, and the outcome is checked.",
    "timestamp": "deadlines are of minutes to days; whoever proposes a block moves its time by seconds.",
    "uninitialized-local": "sums and counts that begin at zero, as Solidity has it.",
}

_SCRIPT = """
const solc = require(process.argv[1]);
const compile = solc.cwrap('solidity_compile', 'string', ['string', 'number', 'number']);
process.stdout.write(compile(require('fs').readFileSync(0, 'utf8'), 0, 0));
"""


def as_solc(soljson: str, arguments: list[str]) -> None:
    """Be solc: print the version, or compile one file into the combined JSON."""
    if "--version" in arguments:
        print(f"solc, the solidity compiler commandline interface\nVersion: {SOLC}")
        return
    name = next(a for a in arguments if a.endswith(".sol"))
    evm = ["bytecode", "deployedBytecode"]
    wanted = ["abi", "devdoc", "userdoc", "evm.methodIdentifiers"]
    wanted += [f"evm.{part}.{what}" for part in evm for what in ("object", "sourceMap")]
    settings = {**SETTINGS, "outputSelection": {"*": {"*": wanted, "": ["ast"]}}}
    request = {"language": "Solidity", "sources": {name: {"content": Path(name).read_text()}}, "settings": settings}
    tools = node_tools()
    assert tools is not None
    done = subprocess.run(
        [*tools[0], "-e", _SCRIPT, soljson], input=json.dumps(request), capture_output=True, text=True, check=True
    )
    output = json.loads(done.stdout)
    contracts = {}
    for contract, made in output["contracts"][name].items():
        code, deployed = (made["evm"][part] for part in evm)
        contracts[f"{name}:{contract}"] = {
            "abi": made["abi"],
            "bin": code["object"],
            "bin-runtime": deployed["object"],
            "srcmap": code["sourceMap"],
            "srcmap-runtime": deployed["sourceMap"],
            "devdoc": made["devdoc"],
            "userdoc": made["userdoc"],
            "hashes": made["evm"]["methodIdentifiers"],
        }
    sources = {name: {"AST": source["ast"], "id": source["id"]} for name, source in output["sources"].items()}
    print(json.dumps({"contracts": contracts, "sources": sources, "sourceList": list(sources), "version": SOLC}))


def find() -> str | None:
    """The installed Slither, or None."""
    named = os.environ.get("SLITHER")
    return named if named and Path(named).is_file() else shutil.which("slither")


def analyse(slither: str) -> list[tuple[str, str, str, str]]:
    """Run it; (check, impact, where, words) of everything that it reports."""
    with tempfile.TemporaryDirectory() as folder:
        soljson = fetch_package(f"solc@{SOLC}", Path(folder)) / "soljson.js"
        solc = Path(folder) / "solc"
        root = Path(__file__).parents[2]
        solc.write_text(
            f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m tests.contracts.slither '
            f'--as-solc "{soljson}" "$@"\n'
        )
        solc.chmod(0o755)
        copy = Path(folder) / source_path().name
        copy.write_bytes(source_path().read_bytes())
        done = subprocess.run(
            [slither, copy.name, "--solc", str(solc), "--json", "-", "--exclude-dependencies"],
            cwd=folder, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        if not done.stdout.startswith("{"):
            raise RuntimeError(f"slither failed: {done.stderr[-2000:]}")
        report = json.loads(done.stdout)
        if not report["success"]:
            raise RuntimeError(f"slither failed: {report['error']}")
        found = []
        for item in report["results"].get("detectors", []):
            places = [e for e in item["elements"] if e["type"] in ("function", "variable", "contract")]
            where = places[0]["name"] if places else ""
            found.append((item["check"], item["impact"], where, " ".join(item["description"].split())))
        return found


def main() -> int:
    """Print what was found; 1 where some of it has to be mended."""
    slither = find()
    if slither is None:
        print("slither is not here: pip install slither-analyzer (elsewhere), and name it in SLITHER", file=sys.stderr)
        return 2
    found = analyse(slither)
    for check, impact, where, words in sorted(found):
        if check not in EXPLAINED:
            print(f"{impact} {check} in {where}: {words}")
    for check, count in sorted(Counter(check for check, *_ in found).items()):
        print(f"{count:3d} {check}: {EXPLAINED.get(check, 'to be mended')}")
    return 0 if {check for check, *_ in found} <= EXPLAINED.keys() else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-solc"]:
        as_solc(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
