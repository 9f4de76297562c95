"""What a transaction under way is, and how long it is waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contracts.errors import LedgerError
from contracts.records import Receipt

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

_FEES = ("maxFeePerGas", "maxPriorityFeePerGas", "gasPrice")


@dataclass(frozen=True)
class SendPolicy:
    """How a chain behind a URL is waited for.

    Attributes:
        confirmations: Blocks that a transaction must be in or under: 1, mined, is enough where blocks are final (a
            network of validators) or made on demand (anvil), since what a reorganisation takes back is sent again.
            With more, nothing goes on before; on a public network 2 to 12.
        unreachable_seconds: How long a node that does not answer (restarts) is asked again.
        mined_seconds: How long a transaction may take altogether.
        replace_seconds: After so long without being mined, while blocks go by, it is replaced with a higher fee.
        most_fee: The most wei per gas that a replacement may offer; None: eight times what was first offered.
    """

    confirmations: int = 1
    unreachable_seconds: float = 30.0
    mined_seconds: float = 300.0
    replace_seconds: float = 60.0
    most_fee: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.confirmations <= 1000:
            raise LedgerError(f"{self.confirmations} confirmations: they are 1 (mined) to 1000.")
        if min(self.unreachable_seconds, self.mined_seconds, self.replace_seconds) < 0:
            raise LedgerError("a time to wait for a node is below zero.")


@dataclass
class Outgoing:
    """A transaction under way: its sender and number, and every version that was signed, by hash.

    Attributes:
        fields: Of the last version, as signed.
        abi: Whose custom errors may come.
        versions: Hash (0x...) -> signed bytes; the versions differ in their fees alone.
        offered: Wei per gas that the first version offered.
        refused: What the node last said against taking it, in its words.
        mined: What became of it; None until it is on the chain.
        block_hash: Of the block that it was mined in.
    """

    account: LocalAccount
    nonce: int
    fields: dict[str, Any]
    abi: Sequence[Mapping[str, Any]]
    versions: dict[str, bytes] = field(default_factory=dict)
    offered: int = 0
    refused: str = ""
    mined: Receipt | None = None
    block_hash: bytes = b""

    def sign(self, fees: Mapping[str, int]) -> str:
        """Make the next version, with these fees; its hash."""
        self.fields.update(fees)
        signed = self.account.sign_transaction(self.fields)
        self.offered = self.offered or price_of(fees)
        tx = "0x" + bytes(signed.hash).hex()
        self.versions[tx] = bytes(signed.raw_transaction)
        return tx

    @property
    def fees(self) -> dict[str, int]:
        """What the last version offers."""
        return {name: int(self.fields[name]) for name in _FEES if name in self.fields}

    @property
    def receipt(self) -> Receipt:
        """What became of it.

        Raises:
            LedgerError: it is not on the chain.
        """
        if self.mined is None:
            raise LedgerError(f"transaction {self.last} is not on the chain.", "Resume the run later.")
        return self.mined

    @property
    def last(self) -> str:
        """Hash of the last version."""
        return next(reversed(self.versions))


def as_receipt(mined: Mapping[str, Any]) -> Receipt:
    """A receipt as web3 gives it, in plain types."""
    tx = "0x" + bytes(mined["transactionHash"]).hex()
    return Receipt(tx=tx, block=int(mined["blockNumber"]), gas_used=int(mined["gasUsed"]))


def price_of(fees: Mapping[str, int]) -> int:
    """The most wei per gas that these fees offer."""
    return int(fees.get("maxFeePerGas", fees.get("gasPrice", 0)))
