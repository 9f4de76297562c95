"""How the nodes come to share sums: exchange keys registered on the chain, and masks that cancel in pairs."""

from __future__ import annotations

from collections.abc import Sequence

from eth_account.signers.local import LocalAccount

from circuits.errors import QrunError
from contracts.rounds import FederatedRounds
from experiments.features.secure_sum import ExchangeKey, MaskedSum


def open_secure_sum(
    contract: FederatedRounds, accounts: Sequence[LocalAccount], exchange: Sequence[bytes]
) -> MaskedSum:
    """Register every node with its public exchange key, and give the sum whose masks come from the registered keys.

    Args:
        contract: The task.
        accounts: One a node, in the task's order.
        exchange: The nodes' private X25519 keys, 32 bytes each.

    Raises:
        QrunError: the chain holds other keys than the nodes have.
    """
    keys = [ExchangeKey.from_bytes(k) for k in exchange]
    for account, key in zip(accounts, keys, strict=True):
        contract.register(account, key.public)
    registered = [node.exchange_key for node in contract.nodes()]
    if registered != [key.public for key in keys]:
        raise QrunError("the chain holds other exchange keys than this run's nodes have.", "Start the run anew.")
    # Contract and chain name the task: no other sum of these keys can have the same masks.
    return MaskedSum(keys, contract.chain.chain_id.to_bytes(8, "big") + bytes.fromhex(contract.address[2:]))
