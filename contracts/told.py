"""What a JSON-RPC node tells of blocks and transactions, checked as far as hashes and signatures go."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eth.exceptions import PyEVMError
from eth.vm.forks import PragueVM
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]
from trie.hexary import HexaryTrie

from contracts.blocks import Log, SignedTransaction
from contracts.errors import LedgerError
from contracts.rlp import encode, number
from contracts.rpc_errors import redact, translated

if TYPE_CHECKING:
    from contracts.chain import Chain

_WORKERS = 8
"""Questions that a node is asked at a time."""
_BATCH = 64
"""Blocks that are held at a time."""


@dataclass(frozen=True)
class Told:
    """A transaction in a block.

    Attributes:
        tx: Its hash, 0x...
        raw: Its bytes, which hash to it; None where the node does not give them.
        sender: Who signed it; whom the node names, where the bytes are not known.
        to: Whom it calls; None where it makes a contract.
    """

    tx: str
    raw: bytes | None
    sender: bytes
    nonce: int
    to: bytes | None
    data: bytes

    def makes(self) -> bytes:
        """The address of the contract that it would make."""
        return keccak(encode([self.sender, number(self.nonce)]))[12:]


@dataclass(frozen=True)
class ToldBlock:
    """A block; `findings` is what its transactions contradict, a sentence each."""

    number: int
    hash: str
    parent: str
    time: int
    transactions: tuple[Told, ...]
    findings: tuple[str, ...]


class Node:
    """Questions to the node behind a Chain; its answers are hostile until they are compared."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._proofs = True

    def _request(self, method: str, parameters: list[Any]) -> tuple[Any, str | None]:
        with translated(self._chain.where):
            answer = self._chain.w3.provider.make_request(method, parameters)
        error = answer.get("error")
        return answer.get("result"), None if error is None else " ".join(str(error).split())[:120]

    def ask(self, method: str, parameters: list[Any]) -> Mapping[str, Any]:
        """An answer that is an object.

        Raises:
            LedgerError: it is none.
        """
        found, error = self._request(method, parameters)
        if not isinstance(found, Mapping) or not found:
            shown = redact(self._chain.where)
            raise LedgerError(f"the node {shown} gives no answer to {method} ({error}).", "Does it keep old blocks?")
        return found

    def ask_text(self, method: str, parameters: list[Any]) -> str:
        """An answer that is text; empty bytes ("0x") where the node refuses."""
        found, _ = self._request(method, parameters)
        return text_of(found) if isinstance(found, str) and found.startswith("0x") else "0x"

    def call(self, address: str, data: bytes, block: str) -> str:
        """The answer of a contract's view, in hex; what the node refused with, in words, where it did."""
        found, error = self._request("eth_call", [{"to": address, "data": "0x" + data.hex()}, block])
        return found.lower() if isinstance(found, str) else f"no answer ({error})"

    def block_hash(self, block: int) -> str:
        """The hash of a block; empty where there is none of this number."""
        found, _ = self._request("eth_getBlockByNumber", [hex(block), False])
        return text_of(found["hash"]) if isinstance(found, Mapping) else ""

    def receipt(self, tx: str) -> Mapping[str, Any] | None:
        """A transaction's receipt; None where the node has none."""
        found, _ = self._request("eth_getTransactionReceipt", [tx])
        return found if isinstance(found, Mapping) else None

    def storage_root(self, address: str, block: int) -> bytes | None:
        """The root of an account's storage as the node tells it; None where it gives no proofs."""
        if self._proofs:
            found, _ = self._request("eth_getProof", [address, [], hex(block)])
            if isinstance(found, Mapping) and "storageHash" in found:
                return bytes.fromhex(text_of(found["storageHash"])[2:])
            self._proofs = False
        return None

    def slots(self, address: str, slots: Collection[int], block: int) -> Iterator[tuple[int, int]]:
        """What the node says is in storage slots of an account."""

        def one(slot: int) -> tuple[int, int]:
            found, _ = self._request("eth_getStorageAt", [address, hex(slot), hex(block)])
            return slot, quantity(found)

        with ThreadPoolExecutor(_WORKERS) as pool:
            yield from pool.map(one, slots)

    def blocks(self, first: int, last: int, contract: bytes) -> Iterator[ToldBlock]:
        """The blocks `first` to `last`, in order; transactions to `contract` whole, of whatever kind they are."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            for begin in range(first, last + 1, _BATCH):
                yield from pool.map(lambda n: self._block(n, contract), range(begin, min(last + 1, begin + _BATCH)))

    def _block(self, wanted: int, contract: bytes) -> ToldBlock:
        block = self.ask("eth_getBlockByNumber", [hex(wanted), True])
        if quantity(block["number"]) != wanted:
            raise LedgerError(f"the node gives block {quantity(block['number'])} for block {wanted}.")
        findings: list[str] = []
        told = [self._transaction(fields, contract, findings) for fields in block["transactions"]]
        # The header's root says which transactions there are; only the bytes of all of them come to it.
        raws = [one.raw for one in told if one.raw is not None]
        if len(raws) == len(told) and "0x" + _root_of(raws).hex() != text_of(block["transactionsRoot"]):
            findings.append(f"the transactions that the node gives of block {wanted} are not those of its header.")
        return ToldBlock(
            number=wanted,
            hash=text_of(block["hash"]),
            parent=text_of(block["parentHash"]),
            time=quantity(block["timestamp"], 64),
            transactions=tuple(told),
            findings=tuple(findings),
        )

    def _transaction(self, fields: Mapping[str, Any], contract: bytes, findings: list[str]) -> Told:
        tx = text_of(fields["hash"])
        rebuilt = SignedTransaction.rebuild(fields)
        raw = None if rebuilt is None else rebuilt.raw
        if raw is None and str(fields.get("to")).lower() == "0x" + contract.hex():
            # Of another kind: perhaps the node gives its bytes.
            given = self.ask_text("eth_getRawTransactionByHash", [tx])
            raw = bytes.fromhex(given[2:]) or None
        if raw is not None and "0x" + keccak(raw).hex() != tx:
            findings.append(f"what the node tells of transaction {tx} does not hash to that.")
            raw = None
        signed = None if raw is None else _signed(raw)
        if signed is None:
            to = fields.get("to")
            return Told(
                tx=tx,
                raw=None,
                sender=bytes.fromhex(text_of(fields["from"])[2:]),
                nonce=quantity(fields["nonce"], 64),
                to=None if not to else bytes.fromhex(text_of(to)[2:]),
                data=bytes.fromhex(text_of(fields["input"])[2:]),
            )
        sender = bytes(signed.sender)
        if "0x" + sender.hex() != text_of(fields["from"]):
            findings.append(
                f"the node names {text_of(fields['from'])[:42]} as the sender of transaction {tx}, and "
                f"0x{sender.hex()} signed it."
            )
        return Told(tx, raw, sender, int(signed.nonce), bytes(signed.to) or None, bytes(signed.data))


def _root_of(raws: list[bytes]) -> bytes:
    """The root of a block's transactions (Yellow Paper, 4.4)."""
    found = HexaryTrie({})
    for index, raw in enumerate(raws):
        found[encode(number(index))] = raw
    return bytes(found.root_hash)


def _signed(raw: bytes) -> Any | None:
    """A transaction as py-evm reads it, of any kind that it knows, with a signature that is one."""
    try:
        found = PragueVM.get_transaction_builder().decode(raw)
        _ = found.sender
    except (ValidationError, RLPException, BadSignature, PyEVMError, ValueError, TypeError):
        return None
    return found


def text_of(value: Any) -> str:
    """A hex text that begins with 0x, in lower case.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not value.startswith("0x"):
        raise ValueError(f"{str(value)[:40]!a} is no hex text")
    return value.lower()


def quantity(value: Any, bits: int = 256) -> int:
    """A number in hex, as JSON-RPC has it.

    Raises:
        ValueError: it is none, or has more bits.
    """
    found = int(text_of(value), 16)
    if found >> bits:
        raise ValueError(f"a number of more than {bits} bits")
    return found


def log_of(told: Mapping[str, Any]) -> Log:
    """An event as a receipt has it."""
    topics = tuple(bytes.fromhex(text_of(topic)[2:]) for topic in told["topics"])
    return Log(bytes.fromhex(text_of(told["address"])[2:]), topics, bytes.fromhex(text_of(told["data"])[2:]))
