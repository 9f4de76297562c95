"""Whether a node behind a URL tells the truth about a task: the contract is executed again, and compared.

Read are all blocks from the task's opening on. Every transaction to the contract is checked against its hash and its
sender's signature, executed in an EVM of one's own (contracts/replay.py) with its block's number and time, and what
comes out is compared with all that the node says of it: receipts, logs, the answers of the contract's views, its code,
and its storage (by its root, where the node gives proofs). So a node is found that changes an answer, a
receipt or a log, leaves a log out, adds one, or leaves a transaction out of a block.

What a node can still do: keep back the newest blocks, or tell of a chain of its own from some block on, in which the
transactions of others are missing; which chain is the network's its validators say, and no single node can prove it.
Against that there are only other eyes: `known` takes hashes of transactions that this peer or others saw mined, and
peers that ask different nodes can compare `block_hash` of one block. It cannot forge a transaction: it is signed. The
times of blocks are the node's word too, within what other peers' nodes say of the same block.

Not executed is what reached the contract through another contract (whose code and state are unknown here): that is told
as `unchecked`, and from then on the state is not compared. A sender whose account runs code of its own when it is paid
(EIP-7702) may make `withdraw` differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eth_utils.address import to_canonical_address, to_checksum_address
from eth_utils.crypto import keccak

from contracts.blocks import Log
from contracts.build import load_artefact, same_code
from contracts.errors import ContractRevert, LedgerError
from contracts.event_log import Entry
from contracts.history import MOST_BLOCKS
from contracts.interface import decode_log
from contracts.replay import Outcome, Replay
from contracts.rpc_errors import redact
from contracts.told import Node, Told, log_of, quantity, text_of

if TYPE_CHECKING:
    from contracts.chain import Chain

MOST_SAID = 20
"""More differences are not told: the node lies."""
_TIMELESS = ("state", "sets", "nodes")
"""Views that answer the same in every block until the next transaction: asked of the newest block too."""
Event = tuple[int, str, Log]
"""Block, transaction, what was logged."""


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        block: Number of the last block that was read.
        block_hash: Its hash, 0x..., as the node tells it; for peers that ask other nodes.
        transactions: How many of the contract's were executed again.
        differences: What the node says otherwise, a sentence each; empty where it told the truth.
        unchecked: What could not be executed or asked, a sentence each.
    """

    block: int
    block_hash: str
    transactions: int
    differences: tuple[str, ...]
    unchecked: tuple[str, ...]

    def require(self) -> None:
        """Go on only with a node that told the truth.

        Raises:
            LedgerError: it did not; with the first difference.
        """
        if self.differences:
            more = len(self.differences) - 1
            raise LedgerError(
                f"the node lies about the task: {self.differences[0]}" + (f" ({more} more.)" if more else ""),
                "Trust nothing that it said, and give another node with --chain.",
            )


@dataclass(frozen=True)
class Executed:
    """A transaction of the task, executed again.

    Attributes:
        block: Its block's number.
        time: Its block's time, seconds, as the node told it.
        ok: Whether it was not reverted.
        entries: What the contract logged in it; their places in the block are not known here (0).
    """

    block: int
    time: int
    ok: bool
    entries: tuple[Entry, ...]


class Witness:
    """Looks after one task on one node; each `check` reads what is new.

    Attributes:
        chain: The node.
        address: The contract's (checksummed).
    """

    def __init__(self, chain: Chain, address: str) -> None:
        self.chain = chain
        self.address = str(to_checksum_address(address))
        self._contract = to_canonical_address(address)
        self._node = Node(chain)
        self._begin()

    def _begin(self) -> None:
        self._replay = Replay(self.chain.chain_id)
        self._last: tuple[int, str, int] | None = None  # of the last block that was read: number, hash, time
        self._opened = -1
        self._done: dict[str, tuple[int, Outcome]] = {}
        self._times: dict[int, int] = {}  # of the blocks with the task's transactions
        self._foreign: dict[str, str] = {}  # transactions of others in blocks of the task -> whom they called
        self._said: list[str] = []
        self._unchecked: list[str] = []

    def check(self, known: Collection[str] = ()) -> Inspection:
        """Read what is new, execute it, and compare the state with what the node says.

        Args:
            known: Hashes (0x...) of the task's transactions that are known to be mined, whoever saw it.

        Raises:
            LedgerUnreachable: the node does not answer.
            LedgerError: its answers are of no known form, or the chain changed meanwhile: ask again.
        """
        try:
            return self._check(known)
        except Exception as error:
            self._begin()  # whatever was read half is read again
            if isinstance(error, LedgerError):
                raise
            # A field is missing, of another type, or no number: whatever a hostile node can make of its answers.
            what = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise LedgerError(
                f"what the node {redact(self.chain.where)} tells of the task makes no sense ({what}).",
                "Ask another node.",
            ) from None

    def view(self, name: str) -> bytes:
        """What a view without arguments answers by this witness's own state, in the last block read (ABI-encoded).

        Raises:
            ContractRevert: it reverts.
            LedgerError: nothing was read yet.
        """
        if self._last is None:
            raise LedgerError("the witness has read nothing yet.", "Call check() first.")
        return self._replay.view(self._contract, _selector(name), self._last[0], self._last[2])

    def executed(self) -> dict[str, Executed]:
        """The task's transactions as they were executed here, in order; for whoever read its log before."""
        found = {}
        for tx, (block, outcome) in self._done.items():
            own = (log for log in outcome.logs if log.address == self._contract)
            logged = [decode_log(log.topics, log.data, tx, block, 0) for log in own]
            entries = tuple(entry for entry in logged if entry is not None)
            found[tx] = Executed(block, self._times[block], outcome.ok, entries)
        return found

    def _check(self, known: Collection[str]) -> Inspection:
        if self._last is not None and self._node.block_hash(self._last[0]) != self._last[1]:
            self._begin()  # a reorganisation: all from the start
        latest = self._node.ask("eth_getBlockByNumber", ["latest", False])
        head, head_hash = quantity(latest["number"]), text_of(latest["hash"])
        self._read(head)
        if self._last is None or self._last[1] != head_hash:
            raise LedgerError(f"the chain changed while block {head} was read.", "Ask again.")
        now = list(self._missing(known))
        if not self._unchecked:
            now += [*self._logs(head), *self._state(head)]
        self._replay.forget()
        if self._node.block_hash(head) != head_hash:
            raise LedgerError(f"the chain changed while block {head} was compared.", "Ask again.")
        return Inspection(
            block=head,
            block_hash=head_hash,
            transactions=len(self._done),
            differences=tuple(dict.fromkeys([*self._said, *now]))[:MOST_SAID],
            unchecked=tuple(dict.fromkeys(self._unchecked))[:MOST_SAID],
        )

    # -- reading ----------------------------------------------------------------------------------------------------

    def _read(self, head: int) -> None:
        """Execute what is in the blocks up to `head` that were not read yet."""
        if self._opened < 0:
            self._opened = self._opening(head)
        first = self._opened if self._last is None else self._last[0] + 1
        for block in self._node.blocks(first, head, self._contract):
            if self._last is not None:
                if block.parent != self._last[1]:
                    raise LedgerError(f"block {block.number} does not follow the one before it.", "Ask again.")
                if block.time < self._last[2]:
                    self._said.append(f"block {block.number} is older than the one before it.")
            self._said += block.findings
            for told in block.transactions:
                if told.to == self._contract or (told.to is None and told.makes() == self._contract):
                    self._times[block.number] = block.time
                    self._execute(told, block.number, block.time)
                else:
                    self._foreign[told.tx] = "nobody" if told.to is None else str(to_checksum_address(told.to))
            self._last = (block.number, block.hash, block.time)
            if block.number == self._opened and not same_code(self._replay.code(self._contract)):
                self._said.append(
                    f"the node says that the task was opened in block {block.number}, and no transaction there makes "
                    "this version's FederatedRounds."
                )

    def _opening(self, head: int) -> int:
        with_code = bytes.fromhex(text_of(self._node.call(self.address, _selector("openedBlock"), "latest"))[2:])
        opened = int.from_bytes(with_code, "big")
        if len(with_code) != 32 or not 0 <= opened <= head or head - opened > MOST_BLOCKS:
            raise LedgerError(
                f"there is no task at {self.address} by what the node {redact(self.chain.where)} says.",
                "Is it the right chain, and the right address?",
            )
        return opened

    def _execute(self, told: Told, block: int, time: int) -> None:
        if told.raw is None:
            self._unchecked.append(f"transaction {told.tx} is of a kind that the node does not give whole.")
            return
        if told.to is None and not told.data.startswith(bytes.fromhex(load_artefact()["bytecode"][2:])):
            return  # another contract: told where the code is compared
        try:
            outcome = self._replay.run(told.raw, block, time)
        except LedgerError as error:
            self._said.append(error.message)
            return
        self._done[told.tx] = (block, outcome)
        receipt = self._node.receipt(told.tx)
        if receipt is None:
            self._said.append(f"the node has no receipt of transaction {told.tx}, which is in its block {block}.")
            return
        claimed = (quantity(receipt["status"]) == 1, quantity(receipt["blockNumber"]))
        if claimed[1] != block:
            self._said.append(f"the receipt of transaction {told.tx} says block {claimed[1]}, and it is in {block}.")
        if claimed[0] != outcome.ok:
            words = ("failed", "succeeded")
            self._said.append(
                f"the node says that transaction {told.tx} {words[claimed[0]]}; executed again it {words[outcome.ok]}."
            )
        mine = [(block, told.tx, log) for log in outcome.logs]
        self._said += _compare([(block, told.tx, log_of(log)) for log in receipt["logs"]], mine, "the receipt")

    # -- comparing --------------------------------------------------------------------------------------------------

    def _missing(self, known: Collection[str]) -> Iterator[str]:
        for tx in known:
            if tx not in self._done:
                yield f"transaction {tx} is known to be mined, and the node has it in none of the task's blocks."

    def _logs(self, head: int) -> Iterator[str]:
        claimed: list[Event] = []
        for log in self.chain.logs(self.address, self._opened, head):
            tx = "0x" + bytes(log["transactionHash"]).hex()
            found = Log(bytes.fromhex(log["address"][2:]), tuple(bytes(t) for t in log["topics"]), bytes(log["data"]))
            if tx in self._foreign:
                through = (
                    f"transaction {tx} reached the contract through {self._foreign[tx]}, whose code is not executed."
                )
                if through not in self._unchecked:
                    self._unchecked.append(through)
            elif tx not in self._done:
                yield f"the node tells of an event in transaction {tx}, which is in none of its blocks."
            claimed.append((int(log["blockNumber"]), tx, found))
        if not self._unchecked:
            mine = [(block, tx, log) for tx, (block, outcome) in self._done.items() for log in outcome.logs]
            yield from _compare(claimed, mine, "the log")

    def _state(self, head: int) -> Iterator[str]:
        """Differences in code, views and storage, as of block `head`."""
        if self._unchecked:
            return
        code = self._node.ask_text("eth_getCode", [self.address, hex(head)])
        if bytes.fromhex(code[2:]) != self._replay.code(self._contract):
            yield f"the node says that other code stands at {self.address} than its opening makes."
        for name in _views():
            try:
                mine = self.view(name)
            except ContractRevert:
                yield f"{name}() reverts, executed again."
                continue
            for tag in (hex(head), "latest") if name in _TIMELESS else (hex(head),):
                claimed = self._node.call(self.address, _selector(name), tag)
                if claimed != "0x" + mine.hex():
                    if tag == "latest" and self._node.block_hash(head + 1):
                        continue  # what is newer by now is read the next time
                    yield (
                        f"the node answers {name}() with {_short(claimed)}; executed again it is "
                        f"{_short('0x' + mine.hex())} (block {head})."
                    )
        if self._node.storage_root(self.address, head) == self._replay.storage_root(self._contract):
            return
        # No proof, or another root: some nodes (anvil) count empty slots. What is in the slots decides.
        storage = self._replay.storage(self._contract)
        for slot, value in self._node.slots(self.address, storage, head):
            if value != storage[slot]:
                yield (
                    f"the node says that storage slot {hex(slot)} holds {hex(value)}; executed again it holds "
                    f"{hex(storage[slot])} (block {head})."
                )


def _compare(claimed: list[Event], mine: list[Event], where: str) -> Iterator[str]:
    """What differs between two lists of events."""
    theirs, ours = Counter(claimed), Counter(mine)
    kinds = {(tx, log.topics[:1]) for _, tx, log in (theirs - ours)}
    for block, tx, log in ours - theirs:
        what = "tells it otherwise" if (tx, log.topics[:1]) in kinds else "leaves it out"
        yield f"transaction {tx} (block {block}) logged {_name(log)}, and {where} of the node {what}."
    for block, tx, log in theirs - ours:
        yield f"{where} of the node has {_name(log)} in transaction {tx} (block {block}), which did not log that."
    if theirs == ours and claimed != mine:
        yield f"{where} of the node has the events in another order."


def _name(log: Log) -> str:
    try:
        entry = decode_log(log.topics, log.data, "", 0, 0)
    except LedgerError:
        entry = None
    return "an event of no known kind" if entry is None else entry.name


def _views() -> list[str]:
    """The contract's views without arguments."""
    found = (item for item in load_artefact()["abi"] if item["type"] == "function")
    return [f["name"] for f in found if f["stateMutability"] in ("view", "pure") and not f["inputs"]]


def _selector(name: str) -> bytes:
    return keccak(f"{name}()".encode())[:4]


def _short(text: str) -> str:
    return ascii(text)[1:-1] if len(text) <= 140 else ascii(text[:137])[1:-1] + "..."
