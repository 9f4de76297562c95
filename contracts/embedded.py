"""The embedded chain: a real EVM (py-evm, through eth-tester) whose state lies in one SQLite file.

Every transaction is executed once, mined into a block of its own and committed with a flush to the disk before its hash
is given out: what was acknowledged survives a kill at any instant, and what the contract refuses leaves no trace. One
process at a time.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eth.abc import StateAPI
from eth.chains.base import MiningChain
from eth.db.atomic import AtomicDB
from eth.db.schema import SchemaV1
from eth.exceptions import HeaderNotFound, TransactionNotFound
from eth.vm.forks import PragueVM
from eth_bloom.bloom import BloomFilter
from eth_tester import EthereumTester
from eth_tester.backends.pyevm import main as pyevm
from eth_tester.exceptions import TransactionFailed
from eth_tester.exceptions import TransactionNotFound as UnknownTransaction
from eth_utils.address import to_canonical_address
from eth_utils.currency import to_wei
from hexbytes import HexBytes
from web3 import EthereumTesterProvider, Web3
from web3.providers.eth_tester.defaults import API_ENDPOINTS

from contracts.errors import LedgerError
from contracts.records import Receipt
from contracts.state_db import SqliteDB

# py-evm logs a traceback of every failed write; what failed is told by the error itself.
logging.getLogger("eth.db.AtomicDBWriteBatch").setLevel(logging.CRITICAL + 1)

CHAIN_ID = 1337
GENESIS_TIME = 1_700_000_000
ALLOWANCE = to_wei(1_000_000, "ether")
"""What every funded account has in the first block."""
NOBODY = "0x0000000000000000000000000000000000000000"


class _Blocks(MiningChain):
    """py-evm's chain with Prague's rules from the first block on, and a constant gas limit."""

    chain_id = CHAIN_ID
    vm_configuration = ((0, PragueVM),)

    def create_header_from_parent(self, parent_header: Any, **parameters: Any) -> Any:
        fixed = {"gas_limit": parent_header.gas_limit, "timestamp": parent_header.timestamp + 1}
        return super().create_header_from_parent(parent_header, **{**parameters, **fixed})

    def get_transaction_builder(self) -> Any:
        return self.get_vm().get_transaction_builder()


class EmbeddedChain(pyevm.PyEVMBackend):
    """eth-tester's backend over a chain on the disk.

    Attributes:
        clock: Seconds since 1970; what the next block's timestamp is taken from, and what a view sees as the time.
            Blocks go forward by a second at least, whatever it says.
        database: The file; close it at the end.
    """

    def __init__(self, path: Path, funded: Sequence[str], clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or time.time
        self.account_keys = ()  # nobody signs here: transactions come signed
        self._mined: tuple[bytes, Any, Any] | None = None  # the last transaction's hash, its block, its receipt
        self._state: tuple[bytes, StateAPI] | None = None
        self.database = SqliteDB(path)
        state = AtomicDB(self.database)
        if SchemaV1.make_canonical_head_hash_lookup_key() in state:
            self.chain = _Blocks(state)
            return
        genesis = {**pyevm.get_default_genesis_params(), "timestamp": GENESIS_TIME}
        account = pyevm.get_default_account_state({"balance": ALLOWANCE})
        self.chain = _Blocks.from_genesis(state, genesis, {to_canonical_address(a): account for a in funded})
        self.database.commit()

    # -- blocks -----------------------------------------------------------------------------------------------------

    def _next_header(self) -> Any:
        """The header of the block that a transaction sent now would be mined into."""
        header = self.chain.header  # py-evm's, a second after the last block
        return header.copy(
            timestamp=max(int(self.clock()), header.timestamp),
            mix_hash=hashlib.sha256(header.parent_hash).digest(),
        )

    def transact(self, raw: bytes) -> Receipt:
        """Execute a signed transaction, and mine it unless it reverts: then nothing is kept of it.

        Raises:
            TransactionFailed: it reverted; with the data in hex.
            LedgerError: the disk is full.
        """
        transaction = self.chain.get_transaction_builder().decode(raw)
        header = self._next_header()
        vm = self.chain.get_vm(header)
        receipt, computation = vm.apply_transaction(header, transaction)
        if computation.is_error:
            raise _failed(computation)
        self._mine(vm, vm.add_receipt_to_header(header, receipt), (transaction,), (receipt,))
        found = self.chain.get_canonical_head()
        return Receipt(tx="0x" + transaction.hash.hex(), block=found.block_number, gas_used=receipt.gas_used)

    def _mine(self, vm: Any, header: Any, transactions: tuple[Any, ...], receipts: tuple[Any, ...]) -> bytes:
        """Seal a block and commit it before anybody is told; all of it, or nothing."""
        try:
            filled = vm.set_block_transactions_and_withdrawals(vm.get_block(), header, transactions, receipts)
            block = vm.finalize_block(vm.pack_block(filled, blob_gas_used=0)).block
            self.chain.chaindb.persist_block(block)
            self.database.commit()
            self.chain.header = self.chain.create_header_from_parent(block.header)
        except BaseException:
            # An interrupt may come on either side of the commit: what is on the disk says which block is the last.
            self.database.rollback()
            self.chain.header = self.chain.ensure_header()
            raise
        if transactions:
            self._mined = (transactions[0].hash, block, receipts)
        found: bytes = block.hash
        return found

    def mine_blocks(self, num_blocks: int = 1, coinbase: bytes = pyevm.ZERO_ADDRESS) -> tuple[bytes, ...]:
        """Mine empty blocks; their hashes."""
        mined = []
        for _ in range(num_blocks):
            header = self._next_header().copy(coinbase=coinbase)
            mined.append(self._mine(self.chain.get_vm(header), header, (), ()))
        return tuple(mined)

    def now(self) -> int:
        """The timestamp of a block that would be mined now."""
        found: int = self._next_header().timestamp
        return found

    # -- reading ----------------------------------------------------------------------------------------------------

    def state(self) -> StateAPI:
        """Accounts as the last block left them; for reading only."""
        root = self.chain.header.parent_hash
        if self._state is None or self._state[0] != root:
            self._state = (root, self.chain.get_vm(self.chain.header).state)
        return self._state[1]

    def head_number(self) -> int:
        """Number of the last block."""
        number: int = self.chain.header.block_number - 1
        return number

    def block_time(self, number: int) -> int:
        """The timestamp of a block."""
        found: int = self.chain.get_canonical_block_header_by_number(number).timestamp
        return found

    def base_fee(self) -> int:
        """Wei per gas that the next block takes."""
        fee: int = self.chain.header.base_fee_per_gas
        return fee

    # eth-tester walks back through all blocks to find a transaction; the chain's own index knows it at once.

    def _find(self, transaction_hash: bytes) -> tuple[Any, Any, int]:
        """A transaction's block, the receipts of that block, its place there."""
        wanted = bytes(transaction_hash)
        if self._mined is not None and self._mined[0] == wanted:
            return self._mined[1], self._mined[2], 0  # its sender is recovered already, which costs
        try:
            number, index = self.chain.chaindb.get_transaction_index(wanted)
            block = self.chain.get_canonical_block_by_number(number)
        except (TransactionNotFound, HeaderNotFound, KeyError):
            raise UnknownTransaction(f"no transaction 0x{wanted.hex()}") from None
        return block, block.get_receipts(self.chain.chaindb), index

    def get_transaction_by_hash(self, transaction_hash: bytes) -> Any:
        """A transaction, in eth-tester's form."""
        block, _, index = self._find(transaction_hash)
        return pyevm.serialize_transaction(block, block.transactions[index], index, False)

    def get_transaction_receipt(self, transaction_hash: bytes) -> Any:
        """A receipt, in eth-tester's form."""
        block, receipts, index = self._find(transaction_hash)
        transaction = block.transactions[index]
        return pyevm.serialize_transaction_receipt(block, receipts, transaction, index, False, self.chain.get_vm())

    def receipt(self, transaction_hash: bytes) -> Receipt | None:
        """What became of a transaction; None where it is not mined."""
        try:
            block, receipts, index = self._find(transaction_hash)
        except UnknownTransaction:
            return None
        gas = receipts[index].gas_used  # a block has one transaction, so that the sum up to it is its own
        return Receipt(tx="0x" + bytes(transaction_hash).hex(), block=block.number, gas_used=gas)

    def gas_used(self, transaction_hash: bytes) -> int:
        """Gas of a mined transaction."""
        _, receipts, index = self._find(transaction_hash)
        gas: int = receipts[index].gas_used
        return gas

    def logs(self, address: str, first: int, last: int) -> list[dict[str, Any]]:
        """What a contract logged in blocks `first` to `last`, as eth_getLogs gives it, without recovering senders."""
        found = []
        canonical = to_canonical_address(address)
        for number in range(first, last + 1):
            header = self.chain.get_canonical_block_header_by_number(number)
            if canonical not in BloomFilter(header.bloom):
                continue
            block = self.chain.get_canonical_block_by_number(number)
            place = 0
            for index, receipt in enumerate(block.get_receipts(self.chain.chaindb)):
                for log in receipt.logs:
                    if log.address == canonical:
                        found.append(
                            {
                                "address": address,
                                "topics": [HexBytes(topic.to_bytes(32, "big")) for topic in log.topics],
                                "data": HexBytes(log.data),
                                "blockNumber": number,
                                "blockHash": HexBytes(header.hash),
                                "transactionHash": HexBytes(block.transactions[index].hash),
                                "transactionIndex": index,
                                "logIndex": place,
                            }
                        )
                    place += 1
        return found

    def view(self, to: str, data: bytes) -> bytes:
        """What a contract's view gives in the block that would be mined now.

        Raises:
            TransactionFailed: it reverted; with the data in hex.
        """
        header = self._next_header()
        vm = self.chain.get_vm(header)
        place, nobody = to_canonical_address(to), to_canonical_address(NOBODY)
        computation = vm.execute_bytecode(
            origin=nobody,
            gas_price=0,
            gas=header.gas_limit,
            to=place,
            sender=nobody,
            value=0,
            data=data,
            code=vm.state.get_code(place),
            code_address=place,
        )
        if computation.is_error:
            raise _failed(computation)
        output: bytes = computation.output
        return output

    def call(self, transaction: dict[str, Any], block_number: Any = "latest") -> bytes:
        """As eth-tester's, but free of charge, a revert carries its data in hex, and the time is now's."""
        header = self._next_header()
        if block_number not in ("latest", "pending", "safe", "finalized"):
            asked = pyevm._get_block_by_number(self.chain, block_number).header
            header = self.chain.create_header_from_parent(asked)
        transaction = {"gas": header.gas_limit, **transaction}
        unsigned = self._get_normalized_and_unsigned_evm_transaction(transaction, block_number)
        spoofed = pyevm.EVMSpoofTransaction(
            unsigned, from_=transaction["from"], max_fee_per_gas=0, max_priority_fee_per_gas=0, gas_price=0
        )
        computation = self.chain.get_vm(header.copy(base_fee_per_gas=0)).state.apply_transaction(spoofed)
        if computation.is_error:
            raise _failed(computation)
        output: bytes = computation.output
        return output


def _failed(computation: Any) -> TransactionFailed:
    cause = computation.error
    data = cause.args[0] if cause.args and isinstance(cause.args[0], bytes) else None
    return TransactionFailed(type(cause).__name__ if data is None else "0x" + data.hex())


def open_embedded(
    path: Path, funded: Sequence[str], clock: Callable[[], float] | None = None
) -> tuple[Web3, EmbeddedChain]:
    """Open the chain in a file, or begin one whose first block funds `funded`.

    Returns:
        web3 on that chain, and its backend (whose `database` has to be closed).

    Raises:
        LedgerBusy: another process has it open.
        LedgerError: the file is no chain, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"the chain {path} cannot be made: {error.strerror}.", "Choose a folder you may write."
        ) from None
    backend = EmbeddedChain(path, funded, clock)
    own = {
        "chainId": lambda *_: hex(CHAIN_ID),
        "sendRawTransaction": lambda _, parameters: backend.transact(bytes(HexBytes(parameters[0]))).tx,
    }
    endpoints = {**API_ENDPOINTS, "eth": {**API_ENDPOINTS["eth"], **own}}
    return Web3(EthereumTesterProvider(EthereumTester(backend), endpoints)), backend
