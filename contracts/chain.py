"""One Ethereum chain, embedded in a file or behind a JSON-RPC URL: read it, sign and send, wait until it is mined.

How a transaction gets to a node and stays there is told in contracts/sending.py, how a node is asked in provider.py.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from contracts.errors import LedgerError, LedgerUnreachable
from contracts.outgoing import SendPolicy, as_receipt
from contracts.records import Receipt
from contracts.rpc_errors import redact, translated
from contracts.sending import Sender

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


__all__ = ["Chain", "SendPolicy", "connect", "redact"]

NOBODY = "0x0000000000000000000000000000000000000000"
RUN_GAS = 10_000_000
"""Gas that an account is funded for where the caller does not say."""
MINED = 256
LOG_BLOCKS = 5_000
"""Blocks asked for in one search of the log; halved where a node refuses."""
SETTLED_BLOCKS = 64
"""So many blocks below the head no reorganisation reaches: what was read of them is kept."""
TRANSFER_GAS = 21_000
"""What a transfer of money uses."""
CALL_FIELDS = ("to", "data", "gas", "value")
"""Of a transaction, what it does; the rest is who pays how much for it."""


def connect(
    spec: str | Path,
    funded: Sequence[str] = (),
    *,
    clock: Callable[[], float] | None = None,
    policy: SendPolicy | None = None,
) -> Chain:
    """Open a chain.

    Args:
        spec: The file of an embedded chain (made where there is none), or the http(s) URL of a JSON-RPC node.
        funded: Accounts that the first block of a new embedded chain funds.
        clock: The embedded chain's, in seconds since 1970; the machine's where it is None.
        policy: How a chain behind a URL is waited for: confirmations, restarts, fees. An embedded one needs none.

    Raises:
        LedgerBusy: another process has the file open.
        LedgerUnreachable: the node does not answer (told within five seconds).
        LedgerError: the file is no chain.
    """
    text = str(spec)
    if isinstance(spec, str) and text.lower().startswith(("http://", "https://")):
        return _connect_url(text, policy or SendPolicy())
    if isinstance(spec, str) and "://" in text:
        raise LedgerError(f"{redact(text)}: a chain is a file or an http(s) URL.", "For example http://127.0.0.1:8545.")
    from contracts.local_chain import open_local

    return open_local(Path(spec), funded, clock, where=text)


def _connect_url(url: str, policy: SendPolicy) -> Chain:
    from web3 import Web3

    from contracts.provider import NodeProvider, first_answer

    provider = NodeProvider(url)
    with translated(url):
        chain_id = first_answer(provider, "eth_chainId")
    provider.patience = policy.unreachable_seconds
    return Chain(Web3(provider), kind="json-rpc", where=url, chain_id=chain_id, policy=policy)


class Chain:
    """A chain that is open; a context manager.

    Attributes:
        kind: "embedded" or "json-rpc".
        where: File or URL; a URL may hold a key, so that it is shown only through `redact`.
        chain_id: EIP-155 id.
        gas_used: Gas of all transactions sent through this object.
        mined: Their hashes, those of the last MINED of them: what a node must be able to show again.
        sender: How transactions get to a node; what it had to replace or send again.
    """

    def __init__(
        self,
        w3: Any,
        *,
        kind: Literal["embedded", "json-rpc"],
        where: str,
        chain_id: int,
        policy: SendPolicy | None = None,
    ) -> None:
        self.w3 = w3
        self.kind = kind
        self.chain_id = chain_id
        self.gas_used = 0
        self.mined: deque[str] = deque(maxlen=MINED)
        self.where = where
        self.sender = Sender(self, policy or SendPolicy())
        self._times: dict[int, int] = {}  # of old blocks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the chain free for others."""

    # -- reading ----------------------------------------------------------------------------------------------------

    def head(self) -> tuple[int, str]:
        """Number and hash of the last block."""
        with translated(self.where):
            block = self.w3.eth.get_block("latest")
        return int(block["number"]), _hex(block["hash"])

    def head_number(self) -> int:
        """Number of the last block."""
        with translated(self.where):
            return int(self.w3.eth.block_number)

    def block_hash(self, number: int) -> bytes:
        """The hash of a block, empty where there is none of this number."""
        from web3.exceptions import BlockNotFound

        with translated(self.where):
            try:
                return bytes(self.w3.eth.get_block(number)["hash"])
            except BlockNotFound:
                return b""

    def block_time(self, number: int) -> int:
        """The time of a block that is there, in seconds since 1970."""
        if number in self._times:
            return self._times[number]
        with translated(self.where):
            found = int(self.w3.eth.get_block(number)["timestamp"])
        if number + SETTLED_BLOCKS <= self.head_number():
            self._times[number] = found
        return found

    def time(self) -> int:
        """The chain's time, in seconds since 1970: that of a block mined now, or of the last one."""
        now = self.pending_time()
        return self.block_time(self.head_number()) if now is None else now

    def pending_time(self) -> int | None:
        """The time of a block that would be mined now; None where views are told it, or the node does not know."""
        try:
            with translated(self.where):
                return int(self.w3.eth.get_block("pending")["timestamp"])
        except LedgerUnreachable:
            raise
        except LedgerError:
            return None  # not every node makes up a block that is not there yet

    def code(self, address: str) -> bytes:
        """The code at an address, empty where there is no contract."""
        with translated(self.where):
            return bytes(self.w3.eth.get_code(address))

    def nonce(self, address: str) -> int:
        """How many transactions of an account are mined."""
        with translated(self.where):
            return int(self.w3.eth.get_transaction_count(address, "latest"))

    def balance(self, address: str) -> int:
        """An account's money, in wei."""
        with translated(self.where):
            return int(self.w3.eth.get_balance(address))

    def call(self, function: Any) -> Any:
        """The value of a contract's view function.

        Raises:
            ContractRevert: the contract refused.
        """
        with translated(self.where, function.contract_abi):
            return function.call({"from": NOBODY})

    def logs(self, address: str, first: int, last: int) -> list[Any]:
        """Everything that a contract logged in blocks `first` to `last`, in order."""
        found: list[Any] = []
        step = LOG_BLOCKS
        while first <= last:
            end = min(last, first + step - 1)
            try:
                with translated(self.where):
                    found += self.w3.eth.get_logs({"address": address, "fromBlock": first, "toBlock": end})
            except LedgerUnreachable:
                raise
            except LedgerError:
                if step == 1:
                    raise
                step = max(1, step // 4)  # nodes limit the range, each in words of its own
                continue
            first = end + 1
        return found

    def gas_of(self, transactions: Sequence[str]) -> list[int]:
        """Gas of mined transactions, in their order."""
        with translated(self.where):
            return [int(self.w3.eth.get_transaction_receipt(tx)["gasUsed"]) for tx in transactions]

    def receipt(self, tx: str) -> Receipt | None:
        """What became of a transaction; None where it is not mined."""
        mined = self._receipt(tx)
        return None if mined is None else as_receipt(mined)

    def _receipt(self, tx: str) -> Mapping[str, Any] | None:
        from web3.exceptions import TransactionNotFound

        with translated(self.where):
            try:
                found: Mapping[str, Any] = self.w3.eth.get_transaction_receipt(tx)
            except TransactionNotFound:
                return None
        return found

    # -- sending ----------------------------------------------------------------------------------------------------

    def send(self, account: LocalAccount, call: Any, *, value: int = 0, number: int | None = None) -> Receipt:
        """Sign a contract call (or deployment) with `account`, send it, and wait until it is mined.

        What the contract refuses is not mined and costs nothing: a node is asked to try it out first.

        Args:
            account: Who signs and pays.
            call: A function or constructor with its arguments.
            value: Wei that go with it.
            number: The transaction's (nonce), where something rests on it; None for the next one.

        Raises:
            ContractRevert: the contract refused.
            AccountInUse: another process sent with the account, or `number` is not the next one.
            LedgerUnreachable: the node does not answer.
            LedgerError: not mined in time, or no money.
        """
        self.recheck()
        self.wait_for_pending(account.address)
        # A ContractFunction has contract_abi, a ContractConstructor abi.
        abi = getattr(call, "contract_abi", None) or call.abi
        with translated(self.where, abi):
            # Given gas and fees, web3 fills in nothing of its own and asks the node for nothing.
            fixed = {"from": account.address, "value": value, "gas": 1, "gasPrice": 0, "chainId": self.chain_id}
            built = call.build_transaction(fixed)
        message = {key: built[key] for key in ("to", "data", "value") if built.get(key)}
        with translated(self.where, abi):
            gas = self._gas_for({**message, "from": account.address})
        numbered = {} if number is None else {"nonce": number}
        return self._transact(account, {"value": 0, **message, "gas": gas, **numbered}, abi)

    def _gas_for(self, message: Mapping[str, Any]) -> int:
        """The gas limit to send a call with; raises where the contract refuses it."""
        from web3.exceptions import ContractLogicError

        try:
            needed = self.w3.eth.estimate_gas(message)
        except ContractLogicError as refused:
            # At the time of the last block; what waits for a deadline may be due in the one that is mined next.
            try:
                needed = self.w3.eth.estimate_gas(message, "pending")
            except Exception:
                raise refused from None
        # A margin, for others may move the contract's state before this is mined.
        return int(needed * 1.25) + 60_000

    def wait_for_pending(self, address: str) -> None:
        """Wait until everything that an account sent is mined: what a killed process sent may be under way."""

        def done() -> bool | None:
            with translated(self.where):
                waiting = self.w3.eth.get_transaction_count(address, "pending")
            return True if waiting <= self.nonce(address) else None

        self.wait_until(done, f"an earlier transaction of {address}")

    def wait_until(self, ready: Callable[[], Any], what: str) -> Any:
        """Ask `ready` again and again until it gives something, and give that.

        Raises:
            LedgerError: it took longer than the policy's mined_seconds.
        """
        most = self.sender.policy.mined_seconds
        end = time.monotonic() + most
        pause = 0.01
        while (value := ready()) is None:
            if time.monotonic() > end:
                raise LedgerError(f"{what} is not on the chain after {most:.0f} s.", "Resume the run later.")
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)
        return value

    def fees(self) -> dict[str, int]:
        """What a transaction offers now, in wei per gas: EIP-1559 where the chain has it, else gasPrice."""
        with translated(self.where):
            base = self.w3.eth.get_block("latest").get("baseFeePerGas")
            price = int(self.w3.eth.gas_price)
            if base is None or price == 0:
                return {"gasPrice": price}
            tip = int(self.w3.eth.max_priority_fee)
        # Twice the base fee: it may rise by an eighth a block.
        return {"maxFeePerGas": 2 * int(base) + tip, "maxPriorityFeePerGas": tip}

    def recheck(self) -> list[str]:
        """See that what was mined in the last blocks is still there, and bring back what a reorganisation took.

        Who sends need not call it: `send` does. Who only reads for a while may.

        Returns:
            Hashes of the transactions that were taken back, and are on the chain again.

        Raises:
            AccountInUse: another transaction has taken the place of one of them.
            LedgerError: one cannot be brought back.
        """
        return self.sender.recheck()

    def _transact(self, account: LocalAccount, fields: Mapping[str, Any], abi: Sequence[Mapping[str, Any]]) -> Receipt:
        receipt = self._deliver(account, fields, abi)
        self.gas_used += receipt.gas_used
        self.mined.append(receipt.tx)
        return receipt

    def _deliver(self, account: LocalAccount, fields: Mapping[str, Any], abi: Sequence[Mapping[str, Any]]) -> Receipt:
        """Number, sign and send, and wait until it is mined."""
        return self.sender.deliver(account, fields, abi)

    # -- money ------------------------------------------------------------------------------------------------------

    def fund(self, addresses: Sequence[str], funder_key: str | None = None, *, gas_each: int = RUN_GAS) -> int:
        """See that every account can pay for `gas_each` of gas; see contracts/funding.py. Gives the wei sent."""
        from contracts.funding import fund

        return fund(self, addresses, funder_key, gas_each=gas_each)

    def transfer(self, account: LocalAccount, to: str, wei: int) -> Receipt:
        """Send money, and wait until it is there."""
        self.recheck()
        return self._transact(account, {"to": to, "value": wei, "gas": TRANSFER_GAS}, ())

    def transfer_from_node(self, sender: str, to: str, wei: int) -> Receipt:
        """Send money from an account that the node signs for, and wait until it is there."""
        from contracts.node_account import transfer_from_node

        return transfer_from_node(self, sender, to, wei)


def _hex(value: Any) -> str:
    return "0x" + bytes(value).hex()
