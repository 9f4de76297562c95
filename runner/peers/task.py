"""A federated task that peers on several machines share: opened by one, read, checked and joined by the others.

All that a peer is told is a task's address. The contract there names the digest of the run's config, and with it the
CID under which the config lies in the store. Config and terms are hostile until they agree, and ask nothing of a peer
that only the opener has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.snapshot_file import is_file_name
from circuits.errors import QrunError, UsageError
from circuits.hostile import read_regular
from contracts.chain import Chain
from contracts.errors import ContentError
from contracts.funding import check_money, wei_of
from contracts.records import NodeRecord, Phase, Receipt, TaskSpec
from contracts.rounds import REGISTER_GAS, FederatedRounds, opening_gas
from contracts.store import ContentStore
from experiments.base import find
from runner.config import MAX_CONFIG_BYTES, RunConfig
from runner.keys import NodeKeys
from runner.peers.keys import public_exchange_key, signing_digest
from runner.peers.opening import open_once, opened_before
from runner.task_config import config_cid, config_of, saved_values, terms_of

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
ML_DSA = "ml-dsa-65"
_MAX_ALLOW_FILE = 1 << 16
SOURCES = ("official", "stand-in")


@dataclass(frozen=True)
class Task:
    """A task that can be taken part in.

    Attributes:
        contract: Its log, and what an account can do in it.
        config: What is run; checked against the terms.
    """

    contract: FederatedRounds
    config: RunConfig

    @property
    def spec(self) -> TaskSpec:
        """The terms that it was opened with."""
        return self.contract.task

    @property
    def cid(self) -> str:
        """Of the config."""
        return config_cid(self.spec.config_digest)

    @property
    def open_to_all(self) -> bool:
        """Whether anybody may register, with the deposit."""
        return not self.spec.nodes


@dataclass(frozen=True)
class Offer:
    """What the opener decides beside the config.

    Attributes:
        allowed: Who may take part; empty: anybody who pays the deposit.
        min_nodes: The first round opens when so many are there; 0: all.
        deposit: Wei that registering takes.
        pool: Wei of reward that the opener pays in.
        source: Of the data, "official" or "stand-in".
    """

    allowed: tuple[str, ...] = ()
    min_nodes: int = 0
    deposit: int = 0
    pool: int = 0
    source: str = SOURCES[0]


@dataclass(frozen=True)
class Joined:
    """A registration.

    Attributes:
        node: The record on the chain.
        receipt: Of its transaction.
        again: Whether it had been there before.
    """

    node: NodeRecord
    receipt: Receipt
    again: bool


# -- opening ----------------------------------------------------------------------------------------------------------


def spec_of(config: RunConfig, offer: Offer) -> TaskSpec:
    """The terms of a task.

    Raises:
        UsageError: config and offer do not fit, or others could not run the config.
    """
    check_for_others(config)
    allowed = tuple(check_address(address) for address in offer.allowed)
    if allowed and len(allowed) != config.nodes:
        raise UsageError(
            f"the config has {config.nodes} nodes, and {len(allowed)} are allowed.", "Leave --nodes out: it follows."
        )
    if len(set(allowed)) != len(allowed):
        twice = next(address for k, address in enumerate(allowed) if address in allowed[:k])
        raise UsageError(f"{twice} is on the allow-list twice.", "One account, one node.")
    if not allowed and offer.deposit < 1:
        raise UsageError("a task that is open to all needs a deposit.", "Names cost nothing: add --deposit WEI.")
    least = offer.min_nodes or config.nodes
    if not 1 <= least <= config.nodes:
        raise UsageError(f"--min-nodes {least}: the task has {config.nodes} nodes.", "Take so many or fewer.")
    if offer.deposit < 0 or offer.pool < 0 or offer.deposit >= 2**96 or offer.pool >= 2**128:
        raise UsageError("deposit and pool are whole numbers of wei, from 0 up to all that there is.")
    if offer.source not in SOURCES:
        raise UsageError(f"data source {offer.source!r}: it is {' or '.join(SOURCES)}.")
    return TaskSpec(
        experiment=config.experiment,
        config_digest=config.digest,
        data_source=offer.source,
        max_rounds=config.rounds,
        nodes=allowed,
        rules=config.federation.rules(),
        min_nodes=least,
        deposit=offer.deposit,
        pool=offer.pool,
    )


def opening_price(chain: Chain, spec: TaskSpec) -> int:
    """The wei that opening takes at most, its pool included."""
    return spec.pool + wei_of(chain, opening_gas(len(spec.nodes)))


def opening_cost(chain: Chain, address: str, spec: TaskSpec) -> int:
    """The wei that opening takes at most, its pool included.

    Raises:
        LedgerError: the account holds less; says how much is missing.
    """
    gas = opening_gas(len(spec.nodes))
    return check_money(chain, address, gas=gas, value=spec.pool, what="opening the task")


def open_task(
    chain: Chain,
    store: ContentStore,
    account: LocalAccount,
    config: RunConfig,
    offer: Offer,
    *,
    folder: Path,
    again: bool = False,
) -> tuple[Task, bool]:
    """Publish a config and open a task of it, once: see runner/peers/opening.py.

    Args:
        chain: Where to.
        store: Where the others get the config from.
        account: Who opens and pays.
        config: What is run.
        offer: To whom, and for what.
        folder: Where it is written down what is being opened.
        again: Open another one, though this account has opened one with the same terms.

    Returns:
        The task, and whether it is new.

    Raises:
        UsageError: config and offer do not fit.
        QrunError: the config could not be published; nothing was sent.
        LedgerError: too little money, which is told before anything is sent; or the chain failed.
    """
    spec = spec_of(config, offer)
    if again or opened_before(chain, account.address, spec, folder=folder) is None:
        opening_cost(chain, account.address, spec)
    publish(store, config)
    contract, new = open_once(chain, account, spec, folder=folder, again=again)
    return Task(contract, config), new


def publish(store: ContentStore, config: RunConfig) -> str:
    """Put a config where the others look for it; its CID.

    Raises:
        QrunError: the IPFS daemon does not have it.
    """
    cid = store.put(config.canonical())
    if cid in getattr(store, "waiting", ()):
        raise QrunError(
            "the IPFS daemon does not answer, so that the others could not have the task's config.",
            "Nothing was opened. Start the daemon, or mend --ipfs, and try again.",
        )
    return cid


# -- reading ----------------------------------------------------------------------------------------------------------


def read_task(chain: Chain, store: ContentStore, address: str) -> Task:
    """The task at an address, its config fetched and checked.

    Raises:
        UsageError: that is no address.
        QrunError: the config cannot be had, is none, is not that of the terms, or asks for what only others have.
        LedgerError: there is no such contract on the chain, or chain or store do not answer.
    """
    contract = FederatedRounds.attach(chain, check_address(address))
    return Task(contract, read_config(store, contract.task, contract.address))


def read_config(store: ContentStore, spec: TaskSpec, address: str) -> RunConfig:
    """The config that a task's digest names; see `read_task`."""
    cid = config_cid(spec.config_digest)
    try:
        data = store.get(cid, max_bytes=MAX_CONFIG_BYTES)
    except ContentError as error:
        raise QrunError(
            f"the config of task {address} cannot be had: {error.message}",
            "Is a store online that has it? The opener's has; --gateway URL asks others.",
        ) from None
    try:
        config = config_of(saved_values(data))
        check_for_others(config)
        find(config.experiment)
    except QrunError as error:
        raise QrunError(f"task {address} cannot be taken part in: {error.message}", error.hint) from None
    for term in terms_of(spec, config):
        if not term.agree:
            raise QrunError(
                f"task {address} contradicts itself: its {term.name} are not those of its config "
                f"({_shown(term.said)}, {_shown(term.wanted)}).",
                "Ask who opened it.",
            )
    return config


def check_for_others(config: RunConfig) -> None:
    """Refuse a config that needs what only one peer has: a file, a kept calibration, an account of IBM's.

    Raises:
        UsageError: what to take instead.
    """
    if config.runtime is not None:
        raise UsageError(
            "a task whose models run on IBM's Runtime would spend every node's QPU seconds.",
            "Leave --engine runtime and --run-on out; a finished model can go to a device later.",
        )
    if config.snapshot_sha256 is not None or is_file_name(config.backend):
        raise UsageError(
            "its backend is a snapshot file or a device's own calibration, which the other nodes do not have.",
            "Take one that every installation has: ideal or fake_NAME (`qrun backends list`).",
        )


def _shown(value: object) -> str:
    """A value from outside, short and harmless to a terminal."""
    return ascii(value)[:80]


def check_address(text: str) -> str:
    """An account's or contract's address with its checksum.

    Raises:
        UsageError: it is none, or its mixed case is no checksum (EIP-55).
    """
    from eth_utils.address import is_checksum_address, to_checksum_address

    shown = ascii(text[:60])
    if not _ADDRESS.fullmatch(text):
        raise UsageError(f"{shown} is no address.", "It is 0x and 40 hex digits.")
    if text[2:] not in (text[2:].lower(), text[2:].upper()) and not is_checksum_address(text):
        raise UsageError(f"address {text} has a wrong checksum.", "A character is wrong: copy it again.")
    if not int(text, 16):
        raise UsageError(f"address {text} is nobody's.")
    return str(to_checksum_address(text))


def check_allowed(lines: Iterable[str]) -> tuple[str, ...]:
    """The addresses of an allow-list, one a line; empty lines and what stands behind # are left out.

    Raises:
        UsageError: a line is no address, or an address is there twice; names the line.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            address = check_address(text)
        except UsageError as error:
            raise UsageError(f"line {number}: {error.message}", error.hint) from None
        if address in found:
            raise UsageError(f"line {number}: {address} stands on line {found[address]} too.", "One account, one node.")
        found[address] = number
    if not found:
        raise UsageError("the allow-list is empty.", "One address a line.")
    return tuple(found)


def read_allow_file(path: Path) -> tuple[str, ...]:
    """The addresses in an allow-list's file; see `check_allowed`.

    Raises:
        UsageError: it is not there, too large, no text, or a line is wrong.
    """
    try:
        data = read_regular(path, max_bytes=_MAX_ALLOW_FILE, what="--allow-file")
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"--allow-file {path}: no text in UTF-8.") from None
    except QrunError as error:
        raise UsageError(error.message, error.hint) from None
    try:
        return check_allowed(lines)
    except UsageError as error:
        raise UsageError(f"--allow-file {path}: {error.message}", error.hint) from None


# -- joining ----------------------------------------------------------------------------------------------------------


def check_may_join(task: Task, address: str) -> NodeRecord | None:
    """Whether an account may register; its record where it has.

    Raises:
        QrunError: the task has ended or is full, or the account is not on its list.
    """
    contract = task.contract
    nodes = contract.nodes()
    known = next((node for node in nodes if node.address == address), None)
    if known is not None:
        return known
    if contract.phase() == Phase.ENDED:
        raise QrunError(f"task {contract.address} has ended: nobody can join it any more.")
    if task.spec.nodes and address not in task.spec.nodes:
        raise QrunError(
            f"account {address} is not on the allow-list of task {contract.address}.",
            "Give the opener this address, for a task of its own list; or take the key that is on it.",
        )
    if len(nodes) >= task.config.nodes:
        raise QrunError(
            f"task {contract.address} is full: its {task.config.nodes} nodes have registered.",
            "Ask for a task with more nodes.",
        )
    return None


def joining_price(task: Task) -> int:
    """The wei that registering takes at most, the deposit included."""
    return task.spec.deposit + wei_of(task.contract.chain, REGISTER_GAS)


def joining_cost(task: Task, address: str) -> int:
    """The wei that registering takes at most, the deposit included.

    Raises:
        LedgerError: the account holds less; says how much is missing.
    """
    chain, deposit = task.contract.chain, task.spec.deposit
    return check_money(chain, address, gas=REGISTER_GAS, value=deposit, what="registering")


def join_task(task: Task, account: LocalAccount, keys: NodeKeys) -> Joined:
    """Register a node with its public keys; done before, it changes nothing.

    Raises:
        QrunError: the account may not, or its keystore lacks the signing key that the config asks for.
        LedgerError: too little money, which is told before anything is sent; other keys were registered before.
    """
    known = check_may_join(task, account.address)
    signing = keys_for(task.config, keys)
    if known is None:
        joining_cost(task, account.address)
    receipt = task.contract.register(account, public_exchange_key(keys), signing)
    node = next(node for node in task.contract.nodes() if node.address == account.address)
    return Joined(node, receipt, known is not None)


def keys_for(config: RunConfig, keys: NodeKeys) -> bytes | None:
    """The digest of the signing key that a node registers; None where models are signed with accounts.

    Raises:
        QrunError: the config asks for an ML-DSA-65 key, and there is none.
    """
    if config.federation.signatures != ML_DSA:
        return None
    digest = signing_digest(keys)
    if digest is None:
        raise QrunError(
            f"the task's models are signed with {ML_DSA}, and the keystore holds no such key.",
            "`qrun key import FILE NEW --signing` makes one of the same account that does.",
        )
    return digest
