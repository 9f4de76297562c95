"""See that a run's accounts can pay for their transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contracts.chain import TRANSFER_GAS, Chain
from contracts.errors import LedgerError
from contracts.outgoing import price_of
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
    price = price_of(fees)
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


def wei_of(chain: Chain, gas: int) -> int:
    """The wei that gas may cost now, at most."""
    return price_of(chain.fees()) * gas


def check_money(chain: Chain, address: str, *, gas: int, value: int = 0, what: str) -> int:
    """See that an account can pay for a transaction before anything is sent; the wei that it takes at most.

    Args:
        chain: Where.
        address: Who pays.
        gas: The limit that the transaction is sent with.
        value: Wei that go with it.
        what: What is paid for, for the error ("opening the task").

    Raises:
        LedgerError: it holds less; says how much is missing.
    """
    need = value + wei_of(chain, gas)
    held = chain.balance(address)
    if held < need:
        raise LedgerError(
            f"account {address} holds {ether(held)}, and {what} takes up to {ether(need)}.",
            f"Send it {ether(need - held)} ({need - held} wei) on chain {chain.chain_id}, then try again.",
        )
    return need


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
            f"account {funder.address} of QRUN_CHAIN_KEY holds {ether(held)}, and the run needs {ether(total)}.",
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
            f"the run's accounts need {ether(total)} on {redact(chain.where)}, and the node has none to pay it from.",
            "Put the private key of a funded account into QRUN_CHAIN_KEY.",
        )
    for address, amount in missing.items():
        chain.transfer_from_node(rich, address, amount)


def ether(wei: int) -> str:
    """An amount of wei, for people."""
    return f"{wei} wei" if 0 < wei < 10**9 else f"{wei / 10**18:.6g} ether"
