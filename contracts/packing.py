"""What stands on the chain in packed words: metrics, resources, sets of nodes, and the commitment to grades."""

from __future__ import annotations

import math
from collections.abc import Mapping

from contracts.errors import LedgerError
from contracts.records import RESOURCE_NAMES

_MILLISECONDS = ("seconds", "qpu_seconds")
_BITS = 64


def pack_resources(resources: Mapping[str, float]) -> int:
    """Four 64-bit numbers in the order of RESOURCE_NAMES, the first highest; seconds as milliseconds.

    Raises:
        LedgerError: an unknown name, or a value that is negative, not finite or too large.
    """
    unknown = set(resources) - set(RESOURCE_NAMES)
    if unknown:
        raise LedgerError(f"unknown resource {sorted(unknown)[0]!r}; known: {', '.join(RESOURCE_NAMES)}.")
    word = 0
    for name in RESOURCE_NAMES:
        value = float(resources.get(name, 0)) * (1000 if name in _MILLISECONDS else 1)
        if not math.isfinite(value) or not 0 <= round(value) < 1 << _BITS:
            raise LedgerError(f"resource {name} = {resources[name]} does not fit the record.")
        word = word << _BITS | round(value)
    return word


def unpack_resources(word: int) -> dict[str, float]:
    """The resources in a word."""
    out = {}
    for place, name in enumerate(RESOURCE_NAMES):
        number = word >> _BITS * (len(RESOURCE_NAMES) - 1 - place) & (1 << _BITS) - 1
        out[name] = number / 1000 if name in _MILLISECONDS else float(number)
    return out


def members(word: int) -> frozenset[int]:
    """The nodes in a set: bit i stands for node i."""
    return frozenset(i for i in range(word.bit_length()) if word >> i & 1)


def commitment(contract: str, round_: int, node: int, salt: bytes, row: bytes) -> bytes:
    """What a node is bound to its grades by: keccak256 of contract, round, node, salt and grades, concatenated.

    Args:
        contract: Address.
        round_: The round.
        node: The grader.
        salt: 32 bytes that nobody else can guess.
        row: One byte a node, as in FederatedRounds.sol.
    """
    from eth_utils.address import to_canonical_address
    from eth_utils.crypto import keccak

    if len(salt) != 32:
        raise LedgerError(f"a salt has 32 bytes, not {len(salt)}.")
    return bytes(keccak(to_canonical_address(contract) + round_.to_bytes(4, "big") + bytes([node]) + salt + row))
