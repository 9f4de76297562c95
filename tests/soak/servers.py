"""A chain and a daemon that are killed and come back at the same addresses, with all that they had told anybody."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contracts.npm import fetch_package
from tests.servers import ANVIL, CACHE, IpfsNode, free_port, running, wait_for


def ask(url: str, method: str, *parameters: Any, seconds: float = 60) -> Any:
    """A question to a JSON-RPC node."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        told = json.loads(answer.read())
    if "error" in told:
        raise RuntimeError(f"{method}: {told['error']}")
    return told["result"]


class ChainNode:
    """anvil, mining every second. Killed, it comes back with the state that it was asked for before.

    One anvil is the whole network: what it told is lost with it, unlike on a network of validators. So whoever kills it
    cuts the peers off first; what it has then is what it has when it comes back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, state: str | None = None) -> None:
        """Start it, with a state that it had given before."""
        binary = fetch_package(ANVIL, CACHE) / "bin" / "anvil"
        binary.chmod(0o755)
        log = self.folder / "anvil.log"
        command = [str(binary), "--silent", "--host", "127.0.0.1", "--port", str(self.port), "--chain-id", "31337"]
        command += ["--block-time", "1", "--no-request-size-limit"]
        self._process = self._stack.enter_context(running(command, log=log))
        wait_for(self.url, b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}', self._process, log)
        if state is not None:
            ask(self.url, "anvil_loadState", state)

    def kill_and_restart(self) -> None:
        """kill -9, and up again with all that it has mined; nobody may be connected."""
        ask(self.url, "evm_mine")  # what was sent is in a block: the pool is no part of the state
        state = ask(self.url, "anvil_dumpState")
        self._stack.close()  # kills -9
        time.sleep(0.5)
        self.start(state)

    def close(self) -> None:
        """For good."""
        self._stack.close()


class StoreNode:
    """A js-ipfs daemon."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.node = IpfsNode.init(folder)
        self._stack = ExitStack()

    @property
    def port(self) -> int:
        """Of its RPC interface."""
        return int(self.node.url.rpartition(":")[2])

    def start(self) -> None:
        """Start it, or start it again."""
        self._stack.enter_context(self.node.daemon())

    def kill(self) -> None:
        """kill -9."""
        self._stack.close()

    def collect_garbage(self) -> int:
        """Remove what is not pinned; how many blocks that were."""
        request = urllib.request.Request(f"{self.node.url}/api/v0/repo/gc", data=b"")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return sum(b'"Key"' in line for line in answer.read().splitlines())
