"""The chain in a file, in the place of one behind a URL: the same calls, straight to its EVM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eth_abi.abi import decode
from eth_utils.abi import get_abi_output_types
from web3._utils.abi import map_abi_data
from web3._utils.normalizers import BASE_RETURN_NORMALIZERS

from contracts.chain import Chain
from contracts.embedded import CHAIN_ID, EmbeddedChain, open_embedded
from contracts.errors import LedgerError
from contracts.records import Receipt
from contracts.rpc_errors import translated

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

GAS = 25_000_000
"""Gas limit of a transaction, below the block's; what is not used is not paid."""


class LocalChain(Chain):
    """An embedded chain that is open.

    web3's way through eth-tester formats every value some ten times; what a run asks for goes past it.

    Attributes:
        embedded: The chain itself; its `clock` may be set.
    """

    def __init__(self, w3: Any, embedded: EmbeddedChain, *, where: str) -> None:
        super().__init__(w3, kind="embedded", where=where, chain_id=CHAIN_ID)
        self.embedded = embedded

    def close(self) -> None:
        """Give the file free for others."""
        self.embedded.database.close()

    def head_number(self) -> int:
        """Number of the last block."""
        return self.embedded.head_number()

    def block_time(self, number: int) -> int:
        """The time of a block that is there, in seconds since 1970."""
        with translated(self.where):
            return self.embedded.block_time(number)

    def pending_time(self) -> int | None:
        """Views see the time of a block that would be mined now without being told."""
        return None

    def code(self, address: str) -> bytes:
        """The code at an address, empty where there is no contract."""
        with translated(self.where):
            return self.embedded.state().get_code(_canonical(address))

    def nonce(self, address: str) -> int:
        """How many transactions of an account are mined."""
        with translated(self.where):
            return self.embedded.state().get_nonce(_canonical(address))

    def balance(self, address: str) -> int:
        """An account's money, in wei."""
        with translated(self.where):
            return self.embedded.state().get_balance(_canonical(address))

    def call(self, function: Any) -> Any:
        """The value of a contract's view function, in the block that would be mined now.

        Raises:
            ContractRevert: the contract refused.
        """
        with translated(self.where, function.contract_abi):
            data = bytes.fromhex(function._encode_transaction_data().removeprefix("0x"))
            found = self.embedded.view(function.address, data)
            types = get_abi_output_types(function.abi)
            values = map_abi_data(BASE_RETURN_NORMALIZERS, types, decode(types, found))
            return values[0] if len(values) == 1 else values

    def logs(self, address: str, first: int, last: int) -> list[Any]:
        """Everything that a contract logged in blocks `first` to `last`, in order."""
        with translated(self.where):
            return list(self.embedded.logs(address, first, last))

    def gas_of(self, transactions: Sequence[str]) -> list[int]:
        """Gas of mined transactions, in their order."""
        with translated(self.where):
            return [self.embedded.gas_used(bytes.fromhex(tx[2:])) for tx in transactions]

    def receipt(self, tx: str) -> Receipt | None:
        """What became of a transaction; None where it is not mined."""
        with translated(self.where):
            return self.embedded.receipt(bytes.fromhex(tx[2:]))

    def fees(self) -> dict[str, int]:
        """What a transaction offers now, in wei per gas; nobody mines here who would want a tip."""
        return {"maxFeePerGas": 2 * self.embedded.base_fee(), "maxPriorityFeePerGas": 0}

    def wait_for_pending(self, address: str) -> None:
        """Nothing is ever under way: what is sent is mined at once."""

    def _gas_for(self, message: Mapping[str, Any]) -> int:
        # No trying out: what reverts leaves no trace.
        return GAS

    def recheck(self) -> list[str]:
        """Nothing is ever taken back: one process writes the blocks."""
        return []

    def _deliver(self, account: LocalAccount, fields: Mapping[str, Any], abi: Sequence[Mapping[str, Any]]) -> Receipt:
        nonce = self.nonce(account.address)
        if fields.get("nonce", nonce) != nonce:
            raise LedgerError(f"transaction {fields['nonce']} of {account.address} is not its next one ({nonce}).")
        whole = {**fields, **self.fees(), "nonce": nonce, "chainId": self.chain_id}
        signed = account.sign_transaction(whole)
        with translated(self.where, abi):
            return self.embedded.transact(bytes(signed.raw_transaction))


def open_local(path: Path, funded: Sequence[str], clock: Callable[[], float] | None, *, where: str) -> LocalChain:
    """Open the chain in a file, or begin one; see contracts.chain.connect."""
    w3, embedded = open_embedded(path, funded, clock)
    return LocalChain(w3, embedded, where=where)


def _canonical(address: str) -> Any:
    return bytes.fromhex(address.removeprefix("0x"))
