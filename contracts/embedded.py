"""The embedded chain: a real EVM (py-evm, through eth-tester) whose state lies in one SQLite file.

Every transaction is mined into a block of its own and committed with a flush to the disk before its hash is given
out: what was acknowledged survives a kill at any instant. One process at a time.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eth.chains.base import MiningChain
from eth.db.atomic import AtomicDB
from eth.db.backends.base import BaseDB
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

from contracts.errors import LedgerBusy, LedgerError

# py-evm logs a traceback of every failed write; what failed is told by the error itself.
logging.getLogger("eth.db.AtomicDBWriteBatch").setLevel(logging.CRITICAL + 1)

CHAIN_ID = 1337
GENESIS_TIME = 1_700_000_000
ALLOWANCE = to_wei(1_000_000, "ether")
"""What every funded account has in the first block."""


class SqliteDB(BaseDB):
    """py-evm's key-value store in SQLite. Writes gather in one transaction until `commit`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._sql = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)
            self._sql.execute("pragma locking_mode=exclusive")
            self._sql.execute("pragma journal_mode=wal")
            self._sql.execute("pragma synchronous=full")
            # Taking the write lock now tells a second process at once, and keeps it out to the end.
            self._sql.execute("begin exclusive")
            self._sql.execute(
                "create table if not exists state(key blob primary key, value blob not null) without rowid"
            )
            self._sql.execute("commit")
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def _explain(self, error: sqlite3.Error) -> LedgerError:
        text = str(error)
        if "locked" in text or "busy" in text:
            return LedgerBusy(
                f"the chain {self._path} is in use by another process.",
                "Wait until that one ends, or name another folder; to share a chain, start a node (anvil, geth) and "
                "give its URL with --chain.",
            )
        if "full" in text or "I/O" in text:
            return LedgerError(f"the disk is full: the chain {self._path} cannot be written.", "Make room.")
        if "not a database" in text or "malformed" in text:
            return LedgerError(f"{self._path} is no chain, or is damaged ({text}).", "Name another file or folder.")
        return LedgerError(f"the chain {self._path} cannot be opened or written ({text}).", "Name another folder.")

    def __getitem__(self, key: bytes) -> bytes:
        row = self._run("select value from state where key=?", key).fetchone()
        if row is None:
            raise KeyError(key)
        value: bytes = row[0]
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._begin()
        self._run("insert or replace into state values(?,?)", key, value)

    def __delitem__(self, key: bytes) -> None:
        self._begin()
        if self._run("delete from state where key=?", key).rowcount == 0:
            raise KeyError(key)

    def _exists(self, key: bytes) -> bool:
        return self._run("select 1 from state where key=?", key).fetchone() is not None

    def _begin(self) -> None:
        if not self._sql.in_transaction:
            self._run("begin immediate")

    def _run(self, statement: str, *values: bytes) -> sqlite3.Cursor:
        try:
            return self._sql.execute(statement, values)
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def commit(self) -> None:
        """Make what was written since the last commit durable, all of it or nothing."""
        if self._sql.in_transaction:
            self._run("commit")

    def close(self) -> None:
        """Give the file free; what was not committed is dropped."""
        if self._sql.in_transaction:
            self._run("rollback")
        self._sql.close()


class _Blocks(MiningChain):
    """py-evm's chain with Prague's rules from the first block on, and a constant gas limit."""

    chain_id = CHAIN_ID
    vm_configuration = ((0, PragueVM),)

    def create_header_from_parent(self, parent_header: Any, **parameters: Any) -> Any:
        return super().create_header_from_parent(parent_header, **{**parameters, "gas_limit": parent_header.gas_limit})

    def get_transaction_builder(self) -> Any:
        return self.get_vm().get_transaction_builder()


class EmbeddedChain(pyevm.PyEVMBackend):
    """eth-tester's backend over a chain on the disk."""

    def __init__(self, path: Path, funded: Sequence[str]) -> None:
        self.account_keys = ()  # nobody signs here: transactions come signed
        self._last_sent: Any = None
        self.database = SqliteDB(path)
        state = AtomicDB(self.database)
        if SchemaV1.make_canonical_head_hash_lookup_key() in state:
            self.chain = _Blocks(state)
            return
        genesis = {**pyevm.get_default_genesis_params(), "timestamp": GENESIS_TIME}
        account = pyevm.get_default_account_state({"balance": ALLOWANCE})
        self.chain = _Blocks.from_genesis(state, genesis, {to_canonical_address(a): account for a in funded})
        self.database.commit()

    def mine_blocks(self, num_blocks: int = 1, coinbase: bytes = pyevm.ZERO_ADDRESS) -> tuple[bytes, ...]:
        """Mine, and commit before anybody is told."""
        mined = []
        for _ in range(num_blocks):
            parent = self.chain.get_canonical_head()
            block = self.chain.mine_block(
                coinbase=coinbase,
                mix_hash=hashlib.sha256(parent.hash).digest(),
                timestamp=max(int(time.time()), parent.timestamp + 1),
                blob_gas_used=0,
            )
            self.database.commit()
            mined.append(block.hash)
        return tuple(mined)

    def send_raw_transaction(self, raw_transaction: bytes) -> bytes:
        """Apply a signed transaction; its sender, once recovered (milliseconds of ECDSA), is kept for the receipt."""
        transaction = self.chain.get_transaction_builder().decode(raw_transaction)
        self.chain.apply_transaction(transaction)
        self._last_sent = transaction
        found: bytes = transaction.hash
        return found

    # eth-tester walks back through all blocks to find a transaction; the chain's own index knows it at once.

    def _find(self, transaction_hash: bytes) -> tuple[Any, Any, int]:
        try:
            number, index = self.chain.chaindb.get_transaction_index(bytes(transaction_hash))
            block = self.chain.get_canonical_block_by_number(number)
        except (TransactionNotFound, HeaderNotFound, KeyError):
            raise UnknownTransaction(f"no transaction 0x{bytes(transaction_hash).hex()}") from None
        sent = self._last_sent
        known = sent is not None and sent.hash == bytes(transaction_hash)
        return block, sent if known else block.transactions[index], index

    def get_transaction_by_hash(self, transaction_hash: bytes) -> Any:
        """A transaction, in eth-tester's form."""
        block, transaction, index = self._find(transaction_hash)
        return pyevm.serialize_transaction(block, transaction, index, False)

    def get_transaction_receipt(self, transaction_hash: bytes) -> Any:
        """A receipt, in eth-tester's form."""
        block, transaction, index = self._find(transaction_hash)
        receipts = block.get_receipts(self.chain.chaindb)
        return pyevm.serialize_transaction_receipt(block, receipts, transaction, index, False, self.chain.get_vm())

    def gas_used(self, transaction_hash: bytes) -> int:
        """Gas of a mined transaction."""
        block, _, index = self._find(transaction_hash)
        totals = [0, *(receipt.gas_used for receipt in block.get_receipts(self.chain.chaindb))]
        gas: int = totals[index + 1] - totals[index]  # a receipt holds the sum up to it
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

    def call(self, transaction: dict[str, Any], block_number: Any = "latest") -> bytes:
        """As eth-tester's, but free of charge, and a revert carries its data in hex."""
        header = pyevm._get_block_by_number(self.chain, block_number).header
        asked = {"gas": header.gas_limit, **transaction}
        unsigned = self._get_normalized_and_unsigned_evm_transaction(asked, block_number)
        spoofed = pyevm.EVMSpoofTransaction(
            unsigned, from_=transaction["from"], max_fee_per_gas=0, max_priority_fee_per_gas=0, gas_price=0
        )
        with self.chain.get_vm(header).in_costless_state() as state:
            computation = state.apply_transaction(spoofed)
        if computation.is_error:
            cause = computation.error
            data = cause.args[0] if cause.args and isinstance(cause.args[0], bytes) else None
            raise TransactionFailed(type(cause).__name__ if data is None else "0x" + data.hex())
        output: bytes = computation.output
        return output


def open_embedded(path: Path, funded: Sequence[str]) -> tuple[Web3, EmbeddedChain]:
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
    backend = EmbeddedChain(path, funded)
    own = {"chainId": lambda *_: hex(CHAIN_ID)}
    endpoints = {**API_ENDPOINTS, "eth": {**API_ENDPOINTS["eth"], **own}}
    return Web3(EthereumTesterProvider(EthereumTester(backend), endpoints)), backend
