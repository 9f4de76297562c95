"""See that a run's accounts can pay for their transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contracts.chain import TRANSFER_GAS, Chain
from contracts.errors import LedgerError
from contracts.rpc_errors import redact, translated

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


def fund(chain: Chain, addresses: Sequence[str], funder_key: str | None, *, gas_each: int) -> int:
    """See that every account can pay for `gas_each` of gas at today's fees; what is missing is sent to it.

    On the embedded chain the first block did. Elsewhere the money comes from `funder_key` or, without one, from an
    account that the node itself signs for (anvil has such). Where gas is free nothing is sent.

    Returns:
        The wei that were sent.

    Raises:
        LedgerError: there is no key, or too little money behind it.
    """
    fees = chain.fees()
    price = fees.get("maxFeePerGas", fees.get("gasPrice", 0))
    need = price * gas_each
    missing = {address: need - held for address in addresses if (held := chain.balance(address)) < need}
    if not missing:
        return 0
    if chain.kind == "embedded":
        raise LedgerError(
            f"the chain {chain.where} was begun for other accounts: {next(iter(missing))} has no money.",
            "Name another folder.",
        )
    total = sum(missing.values()) + len(missing) * TRANSFER_GAS * price
    if funder_key:
        _pay_with_key(chain, funder_key, missing, total)
    else:
        _pay_from_node(chain, missing, total)
    return sum(missing.values())


def _funder(key: str) -> LocalAccount:
    from eth_account import Account

    try:
        funder: LocalAccount = Account.from_key(key.strip())
    except Exception:  # whatever eth-account says would show the key
        raise LedgerError("QRUN_CHAIN_KEY is no private key.", "It is 64 hex digits, with or without 0x.") from None
    return funder


def _pay_with_key(chain: Chain, key: str, missing: Mapping[str, int], total: int) -> None:
    funder = _funder(key)
    held = chain.balance(funder.address)
    if held < total:
        raise LedgerError(
            f"account {funder.address} of QRUN_CHAIN_KEY holds {_ether(held)}, and the run needs {_ether(total)}.",
            "Send it the rest, or run fewer nodes or rounds.",
        )
    for address, amount in missing.items():
        chain.transfer(funder, address, amount)


def _pay_from_node(chain: Chain, missing: Mapping[str, int], total: int) -> None:
    with translated(chain.where):
        accounts = list(chain.w3.eth.accounts)
    rich = next((account for account in accounts if chain.balance(account) >= total), None)
    if rich is None:
        raise LedgerError(
            f"the run's accounts need {_ether(total)} on {redact(chain.where)}, and the node has none to pay it from.",
            "Put the private key of a funded account into QRUN_CHAIN_KEY.",
        )
    for address, amount in missing.items():
        chain.transfer_from_node(rich, address, amount)


def _ether(wei: int) -> str:
    return f"{wei / 10**18:.6g} ether"
