"""The nodes' keys: from the operating system, never from the seed; in the run's folder, readable by its owner alone."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from circuits.errors import QrunError
from runner.store import write_durably


@dataclass(frozen=True)
class NodeKeys:
    """A node's chain key (secp256k1) and exchange key (X25519), 32 bytes each. Never shown."""

    chain: bytes
    exchange: bytes

    def __repr__(self) -> str:
        return "NodeKeys(...)"


@dataclass(frozen=True)
class RunKeys:
    """The key that opens the task, and every node's keys."""

    opener: bytes
    nodes: tuple[NodeKeys, ...]

    def __repr__(self) -> str:
        return f"RunKeys({len(self.nodes)} nodes)"


def load_or_create(folder: Path, nodes: int) -> RunKeys:
    """The run's keys, made on the first call and on disk before anybody uses them.

    Raises:
        QrunError: the file is damaged.
    """
    path = folder / "keys.json"
    if not path.exists():
        fresh = {
            "opener": secrets.token_hex(32),
            "nodes": [{"chain": secrets.token_hex(32), "exchange": secrets.token_hex(32)} for _ in range(nodes)],
        }
        write_durably(path, json.dumps(fresh).encode(), mode=0o600)
    try:
        body = json.loads(path.read_bytes())
        keys = RunKeys(
            bytes.fromhex(body["opener"]),
            tuple(NodeKeys(bytes.fromhex(n["chain"]), bytes.fromhex(n["exchange"])) for n in body["nodes"]),
        )
    except (ValueError, KeyError, TypeError):
        raise QrunError(f"{path} is damaged.", "Without its keys a run cannot go on; start it anew.") from None
    if len(keys.nodes) != nodes:
        raise QrunError(f"{path} holds keys of {len(keys.nodes)} nodes, not {nodes}.", "Start the run anew.")
    return keys
