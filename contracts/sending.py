"""Transactions on their way to a JSON-RPC node, each sent once, whatever happens to the answers.

A transaction is signed, and its hash known, before anybody gets it. When an answer is lost the hash is looked up, and
only what the chain does not have is sent again, as the same bytes. One that is not mined while blocks go by is replaced
by the same one with a higher fee and the same number (nonce): the chain takes one of them, never two. What was mined in
the last blocks and is taken back by a reorganisation is noticed before the next transaction, and sent again as it was.
A number that somebody else's transaction has taken is an error: two processes with one key would overwrite each other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.errors import AccountInUse, ContractRevert, LedgerError, LedgerUnreachable
from contracts.outgoing import Outgoing, SendPolicy, as_receipt, price_of
from contracts.records import Receipt
from contracts.rpc_errors import translated

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from contracts.chain import Chain

REORG_BLOCKS = 16
"""How many blocks back a transaction is still looked after once it was mined."""
LOOK_SECONDS = 1.0
"""How often it is looked whether the node still has what it was given."""
MINED_TOO_LATE = "Reverted"
"""Name of the refusal of a transaction that would have gone through a block before the one that it was mined in."""
_SEEN_TAKEN = 3
"""So many looks in a row must show a number as taken: one server may know of a block before another does."""
_STEP_BLOCKS = 2
"""Blocks that have to go by without a transaction before a higher fee can be of any use."""
_FACTOR = 8
"""A replacement offers at most so many times what was first offered, where the policy says nothing."""


class Sender:
    """Sends for one Chain; see the module. Threads may share it.

    Attributes:
        policy: How long is waited for what.
        replaced: How many transactions were offered again with a higher fee.
        sent_again: Hashes of what was sent again, oldest first: the node had lost it, or a reorganisation took it back.
    """

    def __init__(self, chain: Chain, policy: SendPolicy) -> None:
        self._chain = chain
        self.policy = policy
        self.replaced = 0
        self.sent_again: list[str] = []
        self._recent: list[Outgoing] = []
        self._recent_lock = threading.RLock()
        self._rechecking = False
        self._accounts: dict[str, threading.Lock] = {}

    def deliver(self, account: LocalAccount, fields: Mapping[str, Any], abi: Sequence[Mapping[str, Any]]) -> Receipt:
        """Number, sign and send a transaction, and wait until it is mined and confirmed.

        Raises:
            ContractRevert: the contract refused.
            AccountInUse: another process sent with the account.
            LedgerUnreachable: the node does not answer.
            LedgerError: not mined in time, or no money.
        """
        with self._recent_lock:
            mine = self._accounts.setdefault(account.address, threading.Lock())
        with mine:
            nonce = self._next_nonce(account.address)
            if fields.get("nonce", nonce) != nonce:
                raise AccountInUse(
                    f"account {account.address} has sent another transaction: the next one is number {nonce}, and "
                    f"this one was to be number {fields['nonce']}.",
                    "One process, one key: end the other one, then try again.",
                )
            whole = {**fields, "nonce": nonce, "chainId": self._chain.chain_id}
            out = Outgoing(account, nonce, whole, abi)
            out.sign(self._chain.fees())
            self._hand_in(out)
            mined = self._follow(out)
            if mined["status"] != 1:
                self._explain(out)
            with self._recent_lock:
                self._recent = [old for old in self._recent if old.receipt.block > out.receipt.block - REORG_BLOCKS] + [
                    out
                ]
            return out.receipt

    def recheck(self) -> list[str]:
        """See that what was mined in the last blocks is still there, and bring back what is not.

        Returns:
            Hashes of the transactions that a reorganisation had taken back.

        Raises:
            AccountInUse: the number of one of them was taken by another transaction.
            LedgerError: it cannot be brought back: the chain has forgotten more, or the contract refuses it now.
        """
        with self._recent_lock:
            newest = max(self._recent, key=_block, default=None)
            if self._rechecking or newest is None:
                return []
            if self._chain.block_hash(newest.receipt.block) == newest.block_hash:
                return []  # the blocks below are those that it names
            self._rechecking = True
            try:
                return self._restore()
            finally:
                self._rechecking = False

    def _restore(self) -> list[str]:
        gone = []
        for out in list(self._recent):  # in the order in which they were mined: one may need the other
            was = out.receipt.tx
            if self._find(out) is None:
                gone.append(was)
                self._recent.remove(out)  # unless it comes back
                self._bring_back(out, was)
                self._recent.append(out)
        self._recent.sort(key=_block)
        return gone

    # -- the steps --------------------------------------------------------------------------------------------------

    def _next_nonce(self, address: str) -> int:
        # Nothing of the account may be under way: what took its place would be lost without a word.
        self._chain.wait_for_pending(address)
        with self._recent_lock:
            own = [out.nonce + 1 for out in self._recent if out.account.address == address]
        # They are on the chain, as was just seen; a server that lags behind may not know it yet.
        return max([self._chain.nonce(address), *own])

    def _hand_in(self, out: Outgoing) -> bool:
        """Give the node the last version, until it has it for sure; whether it took it, for fees may have risen."""
        tx = out.last
        end = time.monotonic() + self.policy.unreachable_seconds
        while True:
            try:
                with translated(self._chain.where, out.abi):
                    self._chain.w3.eth.send_raw_transaction(out.versions[tx])
                return True
            except ContractRevert:
                raise
            except LedgerUnreachable:
                # The answer is lost; the transaction may have arrived all the same.
                if self._knows(tx):
                    return True
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            except LedgerError as error:
                if _says_known(error.message) or self._knows(tx):
                    return True
                if _says_taken(error.message):
                    raise _in_use(out) from None
                if _says_cheap(error.message):
                    out.refused = error.message
                    return False
                raise

    def _follow(self, out: Outgoing) -> Mapping[str, Any]:
        """Wait until a version is mined and confirmed, and put right what happens on the way; its receipt."""
        start = looked = offered = time.monotonic()
        head, taken, pause = -1, 0, 0.01
        while True:
            mined = self._find(out)
            if mined is not None and self._confirmed(out):
                return mined
            now = time.monotonic()
            if now - start > self.policy.mined_seconds:
                raise LedgerError(
                    f"transaction {out.last} is not on the chain after {self.policy.mined_seconds:.0f} s"
                    + (f": {out.refused}" if out.refused else "."),
                    "Resume the run later.",
                )
            if mined is None and now - looked >= LOOK_SECONDS:
                looked = now
                self.recheck()  # one of the same account may be gone from before it
                if self._chain.nonce(out.account.address) > out.nonce:
                    taken += 1
                    if taken >= _SEEN_TAKEN:
                        raise _in_use(out)
                elif not any(self._knows(tx) for tx in out.versions):
                    # Lost in a restart, or dropped because it offers too little by now.
                    if self._hand_in(out):
                        self.sent_again.append(out.last)
                    else:
                        self._replace(out)
                else:
                    blocks = self._chain.head_number()
                    head = blocks if head < 0 else head
                    if now - offered >= self.policy.replace_seconds and blocks >= head + _STEP_BLOCKS:
                        head, offered = blocks, now
                        self._replace(out)
            time.sleep(pause)
            pause = min(LOOK_SECONDS, pause * 1.5)

    def _find(self, out: Outgoing) -> Mapping[str, Any] | None:
        """The receipt of the version that is mined, noted in `out`; None where none is."""
        for tx in reversed(out.versions):
            found = self._chain._receipt(tx)
            if found is not None:
                out.mined = as_receipt(found)
                out.block_hash = bytes(found["blockHash"])
                return found
        out.mined = None
        return None

    def _confirmed(self, out: Outgoing) -> bool:
        more = self.policy.confirmations - 1
        return more == 0 or self._chain.head_number() >= out.receipt.block + more

    def _replace(self, out: Outgoing) -> None:
        """Offer more for the same transaction, as far as the policy goes."""
        old = out.fees
        most = self.policy.most_fee or _FACTOR * out.offered
        now = self._chain.fees()
        # Nodes take a replacement that offers a tenth more, of each fee; where even that is too much, none is made.
        least = {name: value + value // 8 + 1 for name, value in old.items()}
        if price_of(old) == 0 or price_of(least) > most:
            return
        new = {name: min(most, max(value, now.get(name, 0))) for name, value in least.items()}
        tx = out.sign(new)
        try:
            taken = self._hand_in(out)
        except LedgerUnreachable:
            return  # it may have arrived: both are waited for
        except LedgerError:
            taken = False  # the old one was mined just now, or there is no money for more
        if taken:
            self.replaced += 1
        else:
            del out.versions[tx]
            out.fields.update(old)

    def _bring_back(self, out: Outgoing, was: str) -> None:
        """What a reorganisation took back: wait for it where the node has it still, else send the same bytes again."""
        address = out.account.address
        if not any(self._knows(tx) for tx in out.versions) and self._chain.nonce(address) <= out.nonce:
            with translated(self._chain.where):
                waiting = int(self._chain.w3.eth.get_transaction_count(address, "pending"))
            if waiting < out.nonce:
                raise LedgerError(
                    f"the chain has forgotten more than transaction {was}: account {address} has sent {waiting} there, "
                    f"and {out.nonce} before that one.",
                    "Is it the chain that the run began on? A node that lost its state has to be restored first.",
                )
            self.sent_again.append(out.last)
            self._hand_in(out)
        mined = self._follow(out)
        if mined["status"] != 1:
            try:
                self._explain(out)
            except ContractRevert as error:
                raise LedgerError(
                    f"a reorganisation took transaction {was} back, and sent again it was of no effect: "
                    f"{error.message}.",
                    "What came after it on the chain decides; resume the run.",
                ) from None

    def _explain(self, out: Outgoing) -> None:
        """Raise what a transaction failed with when it was mined."""
        from contracts.chain import CALL_FIELDS

        again = {k: out.fields[k] for k in CALL_FIELDS if k in out.fields} | {"from": out.account.address}
        with translated(self._chain.where, out.abi):
            self._chain.w3.eth.call(again, out.receipt.block - 1)
        raise ContractRevert(MINED_TOO_LATE, {"tx": out.receipt.tx})

    def _knows(self, tx: str) -> bool:
        """Whether the node has a transaction, mined or waiting."""
        from web3.exceptions import TransactionNotFound

        with translated(self._chain.where):
            try:
                return self._chain.w3.eth.get_transaction(tx) is not None
            except TransactionNotFound:
                return False


def _block(out: Outgoing) -> int:
    return out.receipt.block


def _says_known(message: str) -> bool:
    text = message.lower()
    return any(words in text for words in ("already known", "already imported", "known transaction"))


def _says_taken(message: str) -> bool:
    text = message.lower()
    return any(words in text for words in ("nonce too low", "nonce is too low", "oldnonce", "replacement"))


def _says_cheap(message: str) -> bool:
    text = message.lower()
    return any(words in text for words in ("base fee", "underpriced", "fee too low", "feetoolow", "price too low"))


def _in_use(out: Outgoing) -> AccountInUse:
    return AccountInUse(
        f"account {out.account.address} is used by another process too: its transaction number {out.nonce} is "
        "another one than was sent here.",
        "One process, one key: end the other one, or give it a key of its own; then resume.",
    )
