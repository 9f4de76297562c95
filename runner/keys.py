"""The nodes' keys: from the operating system, never from the seed; in the run's folder, readable by its owner alone."""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from circuits.errors import QrunError
from runner.store import write_durably


@dataclass(frozen=True)
class NodeKeys:
    """A node's chain key (secp256k1), exchange key (X25519) and, where it signs with ML-DSA-65, the seed of that key.

    32 bytes each. Never shown.
    """

    chain: bytes
    exchange: bytes
    signing: bytes | None = None

    def __repr__(self) -> str:
        return "NodeKeys(...)"


@dataclass(frozen=True)
class RunKeys:
    """The key that opens the task, and every node's keys."""

    opener: bytes
    nodes: tuple[NodeKeys, ...]

    def __repr__(self) -> str:
        return f"RunKeys({len(self.nodes)} nodes)"


def grade_salt(keys: NodeKeys, chain_id: int, contract: str, round_: int) -> bytes:
    """The salt of a node's grades in a round of a task: 32 bytes that nobody can guess and the node can make again.

    HMAC-SHA256 over chain id (32 bytes), contract (20) and round (4), under a key that HMAC-SHA256 derives from the
    node's chain key; the run's seed has no part in it, for the others know that.

    Args:
        keys: The node's.
        chain_id: EIP-155 id of the chain.
        contract: Address of the task's contract, 0x and 40 hex digits.
        round_: The round.
    """
    own = hmac.digest(keys.chain, b"qrun grade salts 1", "sha256")
    task = chain_id.to_bytes(32, "big") + bytes.fromhex(contract[2:])
    return hmac.digest(own, task + round_.to_bytes(4, "big"), "sha256")


def load_or_create(folder: Path, nodes: int, *, signing: bool = False) -> RunKeys:
    """The run's keys, made on the first call and on disk before anybody uses them.

    Args:
        folder: The run's.
        nodes: How many nodes have keys.
        signing: Whether nodes sign with ML-DSA-65 keys of their own.

    Raises:
        QrunError: the file is damaged, or of other nodes.
    """
    path = folder / "keys.json"
    names = ("chain", "exchange", *(["signing"] if signing else []))
    if not path.exists():
        fresh = {
            "opener": secrets.token_hex(32),
            "nodes": [{name: secrets.token_hex(32) for name in names} for _ in range(nodes)],
        }
        write_durably(path, json.dumps(fresh).encode(), mode=0o600)
    try:
        body = json.loads(path.read_bytes())
        keys = RunKeys(
            bytes.fromhex(body["opener"]),
            tuple(NodeKeys(**{name: bytes.fromhex(n[name]) for name in names}) for n in body["nodes"]),
        )
    except (ValueError, KeyError, TypeError):
        raise QrunError(f"{path} is damaged.", "Without its keys a run cannot go on; start it anew.") from None
    if len(keys.nodes) != nodes:
        raise QrunError(f"{path} holds keys of {len(keys.nodes)} nodes, not {nodes}.", "Start the run anew.")
    return keys
