"""Money from an account that the node signs for (anvil, a development chain), sent once, whatever happens to answers.

The node is told the transaction's number (nonce), so that asking it twice cannot pay twice: of two transactions with
one number the chain takes one. Several processes may ask one node for money at the same time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from contracts.errors import LedgerError, LedgerUnreachable
from contracts.outgoing import as_receipt
from contracts.records import Receipt
from contracts.rpc_errors import translated

if TYPE_CHECKING:
    from contracts.chain import Chain

_ATTEMPTS = 50
"""Numbers tried where other processes take them first."""


def transfer_from_node(chain: Chain, sender: str, to: str, wei: int) -> Receipt:
    """Send money from an account that the node signs for, and wait until it is there.

    Raises:
        LedgerUnreachable: the node does not answer.
        LedgerError: it refuses, or the transfer is not mined in time.
    """
    for _ in range(_ATTEMPTS):
        first = chain.head_number()
        with translated(chain.where):
            nonce = int(chain.w3.eth.get_transaction_count(sender, "pending"))
        refused = _ask(chain, {"from": sender, "to": to, "value": wei, "nonce": nonce})
        if refused is not None and chain.nonce(sender) <= nonce and not _waiting(chain, sender, nonce):
            raise refused  # the number is free: it is for another reason
        chain.wait_until(lambda n=nonce: True if chain.nonce(sender) > n else None, f"a transfer from {sender}")  # type: ignore[misc]
        found = _find(chain, sender, nonce, first)
        if found is not None and str(found["to"]).lower() == to.lower() and int(found["value"]) == wei:
            tx = "0x" + bytes(found["hash"]).hex()
            return as_receipt(chain.wait_until(lambda tx=tx: chain._receipt(tx), f"transaction {tx}"))  # type: ignore[misc]
    raise LedgerError(f"others send from {sender} all the time: no transfer came through.", "Try again later.")


def _ask(chain: Chain, transfer: dict[str, Any]) -> LedgerError | None:
    """Have the node sign and send; what it refused with, None where it took it."""
    end = time.monotonic() + chain.sender.policy.unreachable_seconds
    while True:
        try:
            with translated(chain.where):
                chain.w3.eth.send_transaction(transfer)
            return None
        except LedgerUnreachable:
            # It may have arrived. The number makes asking again harmless.
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        except LedgerError as error:
            return error


def _waiting(chain: Chain, sender: str, nonce: int) -> bool:
    with translated(chain.where):
        return int(chain.w3.eth.get_transaction_count(sender, "pending")) > nonce


def _find(chain: Chain, sender: str, nonce: int, first: int) -> Any | None:
    """The transaction of this number in the blocks from `first` on."""
    for block in range(first, chain.head_number() + 1):
        with translated(chain.where):
            transactions = chain.w3.eth.get_block(block, True)["transactions"]
        for one in transactions:
            if str(one["from"]).lower() == sender.lower() and int(one["nonce"]) == nonce:
                return one
    return None
