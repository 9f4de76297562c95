"""How the nodes come together: the task on its chain, keys registered there, and masks that cancel in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eth_account.signers.local import LocalAccount

from circuits.errors import QrunError
from contracts.chain import Chain
from contracts.rounds import FederatedRounds
from contracts.signatures import mldsa_key, signing_key
from experiments.features.secure_sum import ExchangeKey, MaskedSum
from runner.keys import NodeKeys


def attach_task(chain: Chain, known: Mapping[str, Any]) -> FederatedRounds:
    """The task that a run remembers (chain_id, address), on the chain that is given now.

    Raises:
        QrunError: it is not there.
    """
    if chain.chain_id != known["chain_id"] or not chain.code(known["address"]):
        raise QrunError(
            f"the run began on chain {known['chain_id']} with contract {known['address']}, which is not on the "
            f"chain given now (id {chain.chain_id}).",
            "Give the chain that it began on; on another one, start it anew.",
        )
    return FederatedRounds.attach(chain, known["address"])


def open_secure_sum(contract: FederatedRounds, accounts: Sequence[LocalAccount], own: Sequence[NodeKeys]) -> MaskedSum:
    """Register every node with its public keys, and give the sum whose masks come from the registered exchange keys.

    Args:
        contract: The task.
        accounts: One a node, in the task's order.
        own: The nodes' private keys: X25519 for the masks, and where models are signed with it, ML-DSA-65.

    Raises:
        QrunError: the chain holds other keys than the nodes have.
    """
    keys = [ExchangeKey.from_bytes(k.exchange) for k in own]
    signing = [None if k.signing is None else signing_key(mldsa_key(k.signing)) for k in own]
    for account, key, bound in zip(accounts, keys, signing, strict=True):
        contract.register(account, key.public, bound)
    registered = [(node.exchange_key, node.signing_key) for node in contract.nodes()]
    if registered != [(key.public, bound) for key, bound in zip(keys, signing, strict=True)]:
        raise QrunError("the chain holds other keys than this run's nodes have.", "Start the run anew.")
    # Contract and chain name the task: no other sum of these keys can have the same masks.
    return MaskedSum(keys, contract.chain.chain_id.to_bytes(8, "big") + bytes.fromhex(contract.address[2:]))
