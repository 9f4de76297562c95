"""All that happened to one task, read for an audit: its transactions in order, who signed each, what each logged.

From the file of an embedded chain it is read without an EVM, from a JSON-RPC node block by block. Who sent a
transaction is recovered from its signature, so that nobody's word is taken for it; that it was mined is the node's.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eth_utils.address import to_canonical_address, to_checksum_address

from contracts.block_file import BlockFile
from contracts.blocks import SignedTransaction
from contracts.build import load_artefact, same_code
from contracts.errors import LedgerError
from contracts.event_log import Entry
from contracts.interface import decode_call, decode_log, topic_of
from contracts.rpc_errors import redact, translated

if TYPE_CHECKING:
    from contracts.chain import Chain

EMBEDDED_CHAIN_ID = 1337
MOST_BLOCKS = 50_000_000
"""From a task's opening to the head: years of any chain. A node that names a later head would keep us asking."""
_WORKERS = 8
"""Questions that a JSON-RPC node is asked at a time."""


@dataclass(frozen=True)
class Call:
    """A transaction that made the contract, called it, or had it log something.

    Attributes:
        tx: Its hash, 0x...
        position: Its place in the block.
        time: The block's time, seconds.
        to: Whom it called (checksummed); None where it made the contract.
        data: What it called with.
        value: Wei that it paid.
        gas: Gas that it used.
        ok: Whether it was not reverted.
        entries: The contract's events in it.
        signed: It by its bytes; None where a node behind a URL did not tell all of them.
        told: Whom a JSON-RPC node names as its sender (checksummed).
    """

    tx: str
    block: int
    position: int
    time: int
    to: str | None
    data: bytes
    value: int
    gas: int
    ok: bool
    entries: tuple[Entry, ...]
    signed: SignedTransaction | None = field(repr=False)
    told: str | None = None

    @cached_property
    def sender(self) -> str:
        """Who signed it (checksummed), recovered from the signature where its bytes are known.

        Raises:
            LedgerError: the signature is none.
        """
        if self.signed is not None:
            return str(to_checksum_address(self.signed.sender))
        return self.told or ""

    @cached_property
    def function(self) -> tuple[str, dict[str, Any]] | None:
        """The contract's function that it calls, and the arguments by name; None where it is none of them."""
        return None if self.to is None else decode_call(self.data)


@dataclass(frozen=True)
class History:
    """The task's transactions, oldest first, and where they stand.

    Attributes:
        where: The file, or "json-rpc".
        chain_id: EIP-155 id.
        address: The contract's (checksummed).
        code: What stands at its address at the head.
        head: Number of the last block.
        head_hash: Its hash, 0x...
        head_time: Its time.
        complete: Whether transactions that logged nothing are among them.
    """

    where: str
    chain_id: int
    address: str
    code: bytes
    head: int
    head_hash: str
    head_time: int
    calls: tuple[Call, ...]
    complete: bool

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every event, in the order of the chain."""
        return tuple(entry for call in self.calls for entry in call.entries)

    @property
    def code_is_ours(self) -> bool:
        """Whether the contract is this version's FederatedRounds, whatever its constructor filled in."""
        return same_code(self.code)


def find_contract(path: Path) -> str | None:
    """The address of the first task that was opened on an embedded chain (checksummed); None where there is none."""
    topic = topic_of("TaskOpened")
    with BlockFile(path) as file:
        for block in range(file.head().number + 1):
            for receipt in file.receipts(file.header(block)):
                for log in receipt.logs:
                    if log.topics[:1] == (topic,):
                        return str(to_checksum_address(log.address))
    return None


def read_file(path: Path, address: str) -> History:
    """A task's log, from the file of an embedded chain.

    Raises:
        LedgerError: the file is damaged.
        LedgerBusy: a process works on it.
    """
    contract = to_canonical_address(address)
    shown = str(to_checksum_address(address))
    calls = []
    with BlockFile(path) as file:
        last = file.head()
        for block in range(1, last.number + 1):
            header = file.header(block)
            _check_size(path, block, header.time, 64)
            before = place = 0
            receipts = file.receipts(header)
            transactions = file.transactions(header)
            if len(receipts) != len(transactions):
                raise LedgerError(f"the chain {path} is damaged: block {block} has not a receipt a transaction.")
            for position, (signed, receipt) in enumerate(zip(transactions, receipts, strict=True)):
                tx = "0x" + signed.hash.hex()
                entries = []
                for log in receipt.logs:
                    if log.address == contract:
                        entry = decode_log(log.topics, log.data, tx, block, place)
                        if entry is not None:
                            entries.append(entry)
                    place += 1
                _check_size(path, block, receipt.gas_total, 64)
                _check_size(path, block, signed.value, 256)
                gas, before = receipt.gas_total - before, receipt.gas_total
                if entries or signed.to == contract:
                    to = None if signed.to is None else str(to_checksum_address(signed.to))
                    calls.append(
                        Call(
                            tx=tx,
                            block=block,
                            position=position,
                            time=header.time,
                            to=to,
                            data=signed.data,
                            value=signed.value,
                            gas=gas,
                            ok=receipt.ok,
                            entries=tuple(entries),
                            signed=signed,
                        )
                    )
        code = file.code(last, contract)
    return History(
        where=str(path),
        chain_id=EMBEDDED_CHAIN_ID,
        address=shown,
        code=code,
        head=last.number,
        head_hash="0x" + last.hash.hex(),
        head_time=last.time,
        calls=tuple(calls),
        complete=True,
    )


def _check_size(path: Path, block: int, value: int, bits: int) -> None:
    """That a number fits the type that Ethereum has for it (Yellow Paper, 4): what is longer breaks who prints it."""
    if not 0 <= value < 1 << bits:
        raise LedgerError(f"the chain {path} is damaged: a number in block {block} has more than {bits} bits.")


def read_chain(chain: Chain, address: str) -> History:
    """A task's log, from a JSON-RPC node.

    Raises:
        LedgerUnreachable: it does not answer.
        LedgerError: there is no contract of ours, or what the node says makes no sense.
    """
    try:
        return _read_chain(chain, str(to_checksum_address(address)))
    except LedgerError:
        raise
    except Exception as error:
        # A field is missing, of another type, or no number: whatever a hostile node can make of its answers.
        what = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise LedgerError(
            f"what the node {redact(chain.where)} tells of the task makes no sense ({what}).", "Ask another node."
        ) from None


def _read_chain(chain: Chain, shown: str) -> History:
    latest = _ask(chain, "eth_getBlockByNumber", ["latest", False])
    head = int(latest["number"], 16)
    code = chain.code(shown)
    contract = chain.w3.eth.contract(address=shown, abi=load_artefact()["abi"])
    if not code:
        raise LedgerError(f"there is no contract at {shown} on chain {chain.chain_id}.", "Is it the right chain?")
    opened = int(chain.call(contract.functions.openedBlock()))
    if not 0 <= opened <= head or head - opened > MOST_BLOCKS:
        raise LedgerError(
            f"the node says that the task was opened in block {opened}, and that block {head} is the last."
        )
    logs = chain.logs(shown, opened, head)
    by_tx: dict[str, list[Entry]] = {}
    for log in logs:
        tx = "0x" + bytes(log["transactionHash"]).hex()
        topics = tuple(bytes(topic) for topic in log["topics"])
        entry = decode_log(topics, bytes(log["data"]), tx, int(log["blockNumber"]), int(log["logIndex"]))
        if entry is not None:
            if not opened <= entry.block <= head:
                raise LedgerError(f"the node tells of an event in block {entry.block}, and was asked to {head}.")
            by_tx.setdefault(tx, []).append(entry)
    numbers = sorted({entry.block for entries in by_tx.values() for entry in entries})
    with ThreadPoolExecutor(_WORKERS) as pool:
        blocks = list(pool.map(lambda n: _ask(chain, "eth_getBlockByNumber", [hex(n), True]), numbers))
        wanted = [
            (block, told)
            for block in blocks
            for told in block["transactions"]
            if told["hash"] in by_tx or (told.get("to") or "").lower() == shown.lower()
        ]
        hashes = [told["hash"] for _, told in wanted]
        if len(set(hashes)) != len(hashes) or not by_tx.keys() <= set(hashes):
            raise LedgerError("the node tells of events of a transaction that is not, or is twice, in its blocks.")
        receipts = list(pool.map(lambda tx: _ask(chain, "eth_getTransactionReceipt", [tx]), hashes))
    calls = tuple(
        _told_call(block, told, receipt, by_tx.get(told["hash"], []))
        for (block, told), receipt in zip(wanted, receipts, strict=True)
    )
    return History(
        where="json-rpc",
        chain_id=chain.chain_id,
        address=shown,
        code=code,
        head=head,
        head_hash=str(latest["hash"]),
        head_time=int(latest["timestamp"], 16),
        calls=calls,
        complete=False,
    )


def _told_call(
    block: Mapping[str, Any], told: Mapping[str, Any], receipt: Mapping[str, Any], entries: list[Entry]
) -> Call:
    signed = SignedTransaction.rebuild(told)
    if signed is not None and "0x" + signed.hash.hex() != told["hash"]:
        signed = None  # not all was told: what was rebuilt is another transaction
    to = told.get("to")
    value, time = int(told["value"], 16), int(block["timestamp"], 16)
    if not 0 <= value < 1 << 256 or not 0 <= time < 1 << 64:
        raise LedgerError(f"the node tells of transaction {told['hash']!a:.80} with numbers that none can have.")
    return Call(
        tx=str(told["hash"]),
        block=int(block["number"], 16),
        position=int(told["transactionIndex"], 16),
        time=time,
        to=None if not to else str(to_checksum_address(to)),
        data=bytes.fromhex(told["input"][2:]),
        value=value,
        gas=int(receipt["gasUsed"], 16),
        ok=int(receipt["status"], 16) == 1,
        entries=tuple(sorted(entries, key=lambda entry: entry.index)),
        signed=signed,
        told=str(to_checksum_address(told["from"])),
    )


def _ask(chain: Chain, method: str, parameters: list[Any]) -> Any:
    with translated(chain.where):
        answer = chain.w3.provider.make_request(method, parameters)
    found = answer.get("result")
    if not isinstance(found, Mapping) or not found:
        raise LedgerError(f"the node gives no answer to {method}.", "Does it keep old blocks?")
    # Plain types, whatever web3 made of them.
    return found
