"""qrun task: a federated task that peers on several machines share: open, join, show, settle."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.commands.base import (
    ConfirmationsOption,
    GatewayOption,
    JsonOption,
    complete_experiment,
    guarded,
    print_json,
)
from runner.commands.experiment import tell_of
from runner.commands.peering import (
    ChainOption,
    IpfsOption,
    KeyOption,
    PasswordFileOption,
    StoreOption,
    TaskOption,
    places_of,
)
from runner.commands.run_options import Asked, defines_a_run

if TYPE_CHECKING:
    from runner.config import RunConfig
    from runner.peers.places import PeerPlaces
    from runner.peers.task import Offer, Task

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the terms and what it takes; send nothing.")]


@guarded
@defines_a_run
def open_(
    experiment: Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)],
    *,
    asked: Asked,
    chain: ChainOption,
    key: KeyOption,
    ipfs: IpfsOption = None,
    store: StoreOption = None,
    gateway: GatewayOption = None,
    confirmations: ConfirmationsOption = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Address that may take part; once for each node, which numbers them.")
    ] = None,
    allow_file: Annotated[Path | None, typer.Option(help="File of such addresses, one a line.")] = None,
    open_to_all: Annotated[
        bool, typer.Option("--open", help="Anybody may take part who pays the deposit, --nodes at most.")
    ] = False,
    deposit: Annotated[int, typer.Option(min=0, help="Wei that joining takes; given back to who is not excluded.")] = 0,
    min_nodes: Annotated[
        int | None, typer.Option(min=1, help="The first round opens when so many are there; all if not told.")
    ] = None,
    pool: Annotated[int, typer.Option(min=0, help="Wei of reward that you pay in, for good models.")] = 0,
    schedule: Annotated[
        str | None, typer.Option(help="sync (all nodes in step) or async (windows). \\[default: sync]")
    ] = None,
    source: Annotated[str, typer.Option(help="Data that the nodes are to use: official or stand-in.")] = "official",
    again: Annotated[
        bool, typer.Option("--again", help="Open another task, though you opened one with the same terms.")
    ] = False,
    password_file: PasswordFileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Open a task: publish its config, put its terms on the chain, and say what to tell the others.

    Your key's account pays, and may take part itself. Run again after a kill, the command goes on and opens no second
    task.
    """
    from runner.options import config_from
    from runner.peers.task import open_task, opening_cost, spec_of

    offer = _offer(allow, allow_file, open_to_all=open_to_all, deposit=deposit, pool=pool, source=source)
    values = {**asked.values, "nodes": _nodes(offer, asked.values["nodes"])}
    if schedule is not None:
        values["federation"] = {"schedule": schedule}
    config = config_from(experiment, values, asked.file, tell=tell_of)
    offer = replace(offer, min_nodes=config.nodes if min_nodes is None else min_nodes)
    spec = spec_of(config, offer)
    places = places_of(chain, ipfs, store, gateway, confirmations, needs_store=True)
    if dry_run:
        _show_cost(places, key, config, offer, as_json=as_json)
        _tell_of_two(spec.min_nodes)
        return
    from runner.peers.keys import address_in, open_keys
    from runner.peers.opening import opened_before

    address, folder = address_in(key), places.folder / "opened"
    with places.open_chain() as opened:
        # Before anybody is asked for a password; the account is the one that the file names, until it is opened.
        if again or opened_before(opened, address, spec, folder=folder) is None:
            opening_cost(opened, address, spec)
        account, _ = open_keys(key, password_file)
        content = places.open_store()
        try:
            task, new = open_task(opened, content, account, config, offer, folder=folder, again=again)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "interrupted. The same command goes on with what was begun, and opens no second task."
            ) from None
        finally:
            content.close()
        _show_opened(task, places, account.address, new=new, as_json=as_json)
        _tell_of_two(spec.min_nodes)


@guarded
def join(
    task: TaskOption,
    chain: ChainOption,
    key: KeyOption,
    *,
    ipfs: IpfsOption = None,
    store: StoreOption = None,
    gateway: GatewayOption = None,
    confirmations: ConfirmationsOption = None,
    password_file: PasswordFileOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take part in a task: shows its terms, then registers your keys and pays the deposit. Twice changes nothing."""
    from runner.peers.joining import describe_joining, notes
    from runner.peers.keys import address_in, open_keys
    from runner.peers.task import check_may_join, join_task, joining_cost, read_task

    places = places_of(chain, ipfs, store, gateway, confirmations, needs_store=True)
    address = address_in(key)
    with places.open_chain() as opened:
        content = places.open_store()
        try:
            found = read_task(opened, content, task)
        finally:
            content.close()
        if not as_json:
            _show_terms(found)
        # Told before anybody is asked for a password.
        if check_may_join(found, address) is None and not dry_run:
            joining_cost(found, address)
        if dry_run:
            told = describe_joining(found, address, None)
        else:
            account, keys = open_keys(key, password_file)
            told = describe_joining(found, account.address, join_task(found, account, keys))
        told["run"] = _command("node", found, places, str(key))
        if as_json:
            print_json(told)
            return
        for line in notes(told):
            typer.echo(line)


@guarded
def show(
    task: TaskOption,
    chain: ChainOption,
    *,
    ipfs: IpfsOption = None,
    store: StoreOption = None,
    gateway: GatewayOption = None,
    account: Annotated[str | None, typer.Option(help="Address whose money in the task is asked about.")] = None,
    key: Annotated[Path | None, typer.Option(help="Keystore whose address is meant, instead of --account.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Where a task stands: terms, nodes, open round, deadlines, settled rounds. No key is needed."""
    from contracts.rounds import FederatedRounds
    from runner.peers.standing import describe_task
    from runner.peers.task import check_address, read_config
    from runner.peers.view import show_task

    places = places_of(chain, ipfs, store, gateway)
    whom = _whom(account, key)
    with places.open_chain() as opened:
        contract = FederatedRounds.attach(opened, check_address(task))
        config = None
        if places.shared:
            content = places.open_store()
            try:
                config = read_config(content, contract.task, contract.address)
            finally:
                content.close()
        told = describe_task(contract, config, whom)
    if as_json:
        print_json(told)
    else:
        show_task(told)


@guarded
def settle(
    task: TaskOption,
    chain: ChainOption,
    key: KeyOption,
    *,
    confirmations: ConfirmationsOption = None,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="End the task if nobody has carried it on for as long as its terms say.")
    ] = False,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do what is due: settle the open round once its time has come; after the end fetch what you are owed."""
    from contracts.rounds import FederatedRounds
    from runner.peers.keys import address_in, open_keys
    from runner.peers.settling import settle_due, why_nothing
    from runner.peers.task import check_address

    places = places_of(chain, confirmations=confirmations)
    address = check_address(task)
    address_in(key)  # a mistake is told before anything is asked
    with places.open_chain() as opened:
        contract = FederatedRounds.attach(opened, address)
        account, _ = open_keys(key, password_file)
        deeds = settle_due(contract, account, abandon=abandon)
        said = [str(deed) for deed in deeds] or [why_nothing(contract, account.address)]
        phase = contract.phase().name.lower()
    if as_json:
        print_json({"task": address, "phase": phase, "deeds": [deed.to_dict() for deed in deeds], "said": said})
    else:
        for line in said:
            typer.echo(line)


# -- what is asked ----------------------------------------------------------------------------------------------------


def _offer(
    allow: list[str] | None, allow_file: Path | None, *, open_to_all: bool, deposit: int, pool: int, source: str
) -> Offer:
    """Who may take part, and for what.

    Raises:
        UsageError: nobody, or in two ways.
    """
    from circuits.errors import UsageError
    from runner.peers.task import Offer, read_allow_file

    if sum((bool(allow), allow_file is not None, open_to_all)) != 1:
        raise UsageError(
            "who may take part is said in one way: --allow ADDRESS ..., --allow-file FILE, or --open.",
            "For example --allow 0x... --allow 0x..., once for each node.",
        )
    allowed = tuple(allow or ()) if allow_file is None else read_allow_file(allow_file)
    return Offer(allowed, deposit=deposit, pool=pool, source=source)


def _nodes(offer: Offer, asked: int | None) -> int | None:
    """The number of nodes, which an allow-list implies.

    Raises:
        UsageError: another one was asked for.
    """
    from circuits.errors import UsageError

    if not offer.allowed:
        return asked
    if asked not in (None, len(offer.allowed)):
        raise UsageError(
            f"--nodes {asked}, but {len(offer.allowed)} are allowed.", "Leave --nodes out: the list implies it."
        )
    return len(offer.allowed)


def _whom(account: str | None, key: Path | None) -> str | None:
    """Whose money is asked about.

    Raises:
        UsageError: two are named, or what is no address.
    """
    from circuits.errors import UsageError
    from contracts.keystore import read_told
    from runner.peers.task import check_address

    if account is not None and key is not None:
        raise UsageError("--account and --key name two accounts.", "Leave one out.")
    if key is not None:
        return read_told(key).address
    return None if account is None else check_address(account)


# -- what is told -----------------------------------------------------------------------------------------------------


def _command(verb: str, task: Task, places: PeerPlaces, key: str = "FILE") -> str:
    """A command line for whoever takes part. What may be secret of an address is left to them."""
    from contracts.chain import redact

    where = ["--chain", redact(places.chain)]
    if places.ipfs is not None:
        where += ["--ipfs", redact(places.ipfs)]
    elif places.blocks is not None:
        where += ["--store", str(places.blocks.absolute())]
    return shlex.join(["qrun", *verb.split(), "--task", task.contract.address, *where, "--key", key])


def _show_terms(task: Task) -> None:
    from runner.peers.standing import describe_terms
    from runner.peers.view import show_terms

    show_terms(f"Task {task.contract.address}", describe_terms(task.spec, task.config))


def _tell_of_two(nodes: int) -> None:
    if nodes == 2:
        tell_of("Privacy", "with two nodes each can subtract its own share from every sum; take three.")


def _show_cost(places: PeerPlaces, key: Path, config: RunConfig, offer: Offer, *, as_json: bool) -> None:
    """What opening would take; nothing is put, nothing sent, and no password needed."""
    from contracts.funding import ether
    from contracts.keystore import read_told
    from runner.peers.standing import describe_terms
    from runner.peers.task import opening_price, spec_of
    from runner.peers.view import show_terms

    spec, address = spec_of(config, offer), read_told(key).address
    with places.open_chain() as chain:
        cost, held = opening_price(chain, spec), chain.balance(address)
    terms = describe_terms(spec, config)
    if as_json:
        told = {"opener": address, "cost": cost, "balance": held, "enough": held >= cost, "terms": terms}
        print_json(told)
        return
    show_terms("Terms", terms)
    enough = "enough" if held >= cost else f"{ether(cost - held)} too little"
    typer.echo(f"opening takes up to {ether(cost)}; account {address} holds {ether(held)}: {enough}")


def _show_opened(task: Task, places: PeerPlaces, opener: str, *, new: bool, as_json: bool) -> None:
    from runner.peers.standing import describe_terms

    then: dict[str, Any] = {"join": _command("task join", task, places), "run": _command("node", task, places)}
    if as_json:
        contract = task.contract
        told = {
            "task": contract.address,
            "chain_id": contract.chain.chain_id,
            "new": new,
            "opener": opener,
            "opened_block": contract.opened_block,
            "terms": describe_terms(task.spec, task.config),
            **then,
        }
        print_json(told)
        return
    _show_terms(task)
    if not new:
        typer.echo("This account had opened it before; for another one with the same terms add --again.")
    typer.echo("Tell the others, each with a chain, a store and a key of its own:\n")
    typer.echo(f"  {then['join']}\n  {then['run']}\n")


def add(app: typer.Typer) -> None:
    """Put the group `task` onto the command line."""
    group = typer.Typer(
        help="Tasks that peers on several machines share: open, join, show, settle.", no_args_is_help=True
    )
    group.command("open")(open_)
    group.command("join")(join)
    group.command("show")(show)
    group.command("settle")(settle)
    app.add_typer(group, name="task")
