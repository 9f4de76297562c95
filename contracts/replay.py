"""The contract's transactions, executed again in an EVM of one's own (py-evm), in memory.

The contract reads nothing of a chain but block number, time, sender and money, and calls nobody but whom it pays: the
signed transactions with their blocks' numbers and times are all that is needed to come to the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth.chains.base import ChainContext
from eth.constants import BLANK_ROOT_HASH, ZERO_HASH32
from eth.db.atomic import AtomicDB
from eth.db.backends.memory import MemoryDB
from eth.vm.forks import PragueVM
from eth.vm.forks.prague.blocks import PragueBlockHeader
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]
from trie.hexary import HexaryTrie

from contracts import trie
from contracts.blocks import Account, Log
from contracts.errors import ContractRevert, LedgerError

_GAS_LIMIT = 1 << 50
_WEALTH = 1 << 240
"""Wei that a sender is given: whether it could pay was for the chain to say."""
_NOBODY = bytes(20)
_FEW = 256
"""Nodes of the state that are not worth looking through."""


@dataclass(frozen=True)
class Outcome:
    """What a transaction did: whether it was not reverted, and what was logged."""

    ok: bool
    logs: tuple[Log, ...]


class Replay:
    """An EVM under Prague's rules with nothing in it but what is executed here."""

    def __init__(self, chain_id: int) -> None:
        self._context = ChainContext(chain_id)
        self._nodes = MemoryDB()
        self._db = AtomicDB(self._nodes)
        self._root = BLANK_ROOT_HASH
        self._touched: dict[bytes, set[int]] = {}
        self._most = _FEW

    def _state(self, block: int, time: int) -> Any:
        header = PragueBlockHeader(
            difficulty=0,
            block_number=block,
            gas_limit=_GAS_LIMIT,
            timestamp=time,
            base_fee_per_gas=0,
            mix_hash=ZERO_HASH32,
            state_root=self._root,
            excess_blob_gas=0,
        )
        return PragueVM.build_state(self._db, header, self._context)

    def run(self, raw: bytes, block: int, time: int) -> Outcome:
        """Execute a signed transaction as it was mined in a block of this number and time (seconds).

        Raises:
            LedgerError: no chain could have mined it (signature, gas, another chain's).
        """
        state = self._state(block, time)
        try:
            signed = PragueVM.get_transaction_builder().decode(raw)
            named = getattr(signed, "chain_id", None)  # the oldest kind of transaction names none
            if named not in (None, self._context.chain_id):
                raise ValidationError(f"it is for chain {named}")
            # Its other transactions are not seen here.
            state.set_nonce(signed.sender, signed.nonce)
            state.set_balance(signed.sender, _WEALTH)
            computation = state.apply_transaction(signed)
        except (ValidationError, RLPException, ValueError, OverflowError) as error:
            what = " ".join(str(error).split())[:120]
            raise LedgerError(f"transaction 0x{keccak(raw).hex()} cannot have been mined ({what}).") from None
        seen = state.persist()
        for address in seen.accounts_queried:
            self._touched.setdefault(bytes(address), set()).update(seen.get_slots_queried(address))
        self._root = state.state_root
        if computation.is_error:
            return Outcome(False, ())
        logs = (
            Log(bytes(address), tuple(topic.to_bytes(32, "big") for topic in topics), bytes(data))
            for address, topics, data in computation.get_log_entries()
        )
        return Outcome(True, tuple(logs))

    def view(self, address: bytes, data: bytes, block: int, time: int) -> bytes:
        """What a contract's view answers in a block of this number and time.

        Raises:
            ContractRevert: it reverts.
        """
        state = self._state(block, time)
        computation = PragueVM.get_state_class().computation_class.apply_message(*_message(state, address, data))
        if computation.is_error:
            raise ContractRevert("Reverted", {})
        return bytes(computation.output)

    def code(self, address: bytes) -> bytes:
        """The code at an address."""
        return bytes(self._state(0, 0).get_code(address))

    def storage_root(self, address: bytes) -> bytes:
        """Root of the trie of an account's storage, as it stands in the state of a block."""
        raw = trie.find(self._root, keccak(address), self._node)
        return trie.EMPTY_ROOT if raw is None else Account.read(raw).storage_root

    def storage(self, address: bytes) -> dict[int, int]:
        """Every storage slot of an account that was ever read or written, and what is in it."""
        state = self._state(0, 0)
        return {slot: int(state.get_storage(address, slot)) for slot in sorted(self._touched.get(address, ()))}

    def forget(self) -> None:
        """Let go of what only earlier states had: of the tries' nodes py-evm keeps every one there ever was."""
        # Memoised by trie and node, so that it holds the tries, and all around them, of thousands of transactions.
        memoised: Any = getattr(HexaryTrie, "_cached_create_node_to_db_mapping", None)
        if hasattr(memoised, "cache_clear"):
            memoised.cache_clear()
        if len(self._nodes.kv_store) <= self._most:
            return
        reached: set[bytes] = set()
        codes: set[bytes] = set()
        for _, raw in trie.walk(self._root, self._node, reached):
            account = Account.read(raw)
            codes.add(account.code_hash)
            for _ in trie.walk(account.storage_root, self._node, reached):
                pass
        self._nodes = MemoryDB({key: self._db[key] for key in reached | codes if key in self._db})
        self._db = AtomicDB(self._nodes)
        self._most = max(_FEW, 2 * len(self._nodes.kv_store))

    def _node(self, key: bytes) -> bytes:
        try:
            return bytes(self._db[key])
        except KeyError:
            raise LedgerError(f"a node 0x{key.hex()} of the state is missing.") from None


def _message(state: Any, address: bytes, data: bytes) -> tuple[Any, Any, Any]:
    from eth.vm.message import Message

    message = Message(
        gas=_GAS_LIMIT,
        to=address,
        sender=_NOBODY,
        value=0,
        data=data,
        code=state.get_code(address),
        is_static=True,
    )
    context = state.get_transaction_context_class()(gas_price=0, origin=_NOBODY)
    return state, message, context
