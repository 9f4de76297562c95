"""A task is opened once, whatever happens on the way: what is about to be sent is written down before it is.

A chain takes one transaction of each number (nonce) of an account, and a contract's address follows from account and
number. So the number is chosen and written down first; after a kill the same transaction is sent again, or the contract
found that it made. Where another transaction has taken the number, this one can never be mined, and a new number is
chosen. Whoever opens the same task from the same account again is led to the one that is there.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import QrunError
from circuits.hostile import NoSuchFileError, load_json, read_regular
from contracts.chain import Chain
from contracts.errors import LedgerError, LedgerUnreachable
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds, address_of_contract, is_task
from runner.store import OTHER_HOME, on_disk, write_durably

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

_MAX_BYTES = 65_536
_LOOKS = 3
"""So many times in a row a contract must be missing: one server may know of a block before another does."""
_LOOK_SECONDS = 1.0


def open_once(
    chain: Chain, account: LocalAccount, spec: TaskSpec, *, folder: Path, again: bool = False
) -> tuple[FederatedRounds, bool]:
    """Open a task, unless this account has opened it already.

    Args:
        chain: Where to.
        account: Who opens and pays; it may have been used before.
        spec: The task.
        folder: Where it is written down what is being opened.
        again: Open another one with the same terms, though there is one.

    Returns:
        The task, and whether it is new.

    Raises:
        QrunError: the chain knows less of the account than is written down here.
        AccountInUse: another process sends with the account.
        ContractRevert: the task cannot be.
    """
    chain.wait_for_pending(account.address)
    note = _Note(folder, chain.chain_id, account.address, spec)
    number = note.read()
    opened = None if number is None else _opened(chain, account.address, number, spec)
    if opened is not None and not again:
        return opened, False
    if number is None or opened is not None or _is_spent(chain, account.address, number, spec, again=again):
        number = chain.nonce(account.address)
        note.write(number)
    return FederatedRounds.deploy(chain, account, spec, number=number), True


def opened_before(chain: Chain, address: str, spec: TaskSpec, *, folder: Path) -> FederatedRounds | None:
    """The task that this account has opened with these terms, as far as it is written down here; None where it has not.

    Raises:
        QrunError: what is written down is damaged.
    """
    number = _Note(folder, chain.chain_id, address, spec).read()
    if number is None:
        return None
    chain.wait_for_pending(address)
    return _opened(chain, address, number, spec)


def _opened(chain: Chain, address: str, number: int, spec: TaskSpec) -> FederatedRounds | None:
    """The task that an account opened with its transaction of that number; None where it did not."""
    contract = address_of_contract(address, number)
    if not chain.code(contract):
        return None
    try:
        found = FederatedRounds.attach(chain, contract)
    except LedgerUnreachable:
        raise
    except LedgerError:
        return None  # another contract took the number
    return found if is_task(found.task, spec) else None


def _is_spent(chain: Chain, address: str, number: int, spec: TaskSpec, *, again: bool) -> bool:
    """Whether another transaction has taken the number, so that a new one has to be chosen.

    Raises:
        QrunError: the chain has forgotten transactions of the account, or a server lags behind; not if `again`.
    """
    sent = chain.nonce(address)
    if sent < number and not again:
        raise QrunError(
            f"the task was begun with transaction {number} of account {address}, and chain {chain.chain_id} knows of "
            f"{sent} only: its node lags behind, or it is another chain of that number.",
            "Wait and try again; on another chain add --again.",
        )
    if sent <= number:
        return sent < number
    for _ in range(0 if chain.kind == "embedded" else _LOOKS):
        time.sleep(_LOOK_SECONDS)
        if _opened(chain, address, number, spec) is not None:
            return False
    return True


class _Note:
    """The number of the transaction that opens a task, in a file of that task, account and chain."""

    def __init__(self, folder: Path, chain_id: int, opener: str, spec: TaskSpec) -> None:
        # In the one form: how an address is spelled makes no other task.
        spelled = replace(spec, nodes=tuple(node.lower() for node in spec.nodes))
        task = {**asdict(spelled), "config_digest": spec.config_digest.hex()}
        self.body: dict[str, Any] = {"chain_id": chain_id, "opener": opener, "task": task}
        name = hashlib.sha256(json.dumps(self.body, sort_keys=True).encode()).hexdigest()[:32]
        self.file = folder / f"{name}.json"

    def read(self) -> int | None:
        """The number; None where nothing was begun.

        Raises:
            QrunError: the file is damaged.
        """
        try:
            data = read_regular(self.file, max_bytes=_MAX_BYTES, what="the note of what was opened")
        except NoSuchFileError:
            return None
        try:
            number = load_json(data, max_bytes=_MAX_BYTES, what="the note")["number"]
            sound = type(number) is int and 0 <= number < 2**64
        except (QrunError, KeyError, TypeError):
            sound = False
        if not sound:
            raise QrunError(
                f"{self.file} is damaged: it says with which transaction the task was opened.",
                "Look whether the account has opened it (the chain's explorer shows it); if not, remove the file.",
            )
        return int(number)

    def write(self, number: int) -> None:
        """Write the number down; on the disk when this returns."""
        with on_disk(self.file.parent, OTHER_HOME):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self.file, json.dumps({**self.body, "number": number}, indent=1).encode() + b"\n", mode=0o600)
