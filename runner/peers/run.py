"""One peer from the command line's words to its report: opens chain, store, keys and folder, and plays."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import QrunError, UsageError
from runner.peers.places import PeerPlaces, peers_home
from runner.peers.play import PeerPlay
from runner.peers.task import read_task
from runner.peers.watch import Watch
from runner.places import is_url
from runner.progress import Reporter
from runner.store import RunStore, locked, on_disk

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from runner.keys import NodeKeys


def folder_of(task: str, account: str) -> Path:
    """Where a peer keeps its state, if nothing else is said: one folder a task and account."""
    return peers_home() / "nodes" / f"{task[2:10].lower()}-{account[2:10].lower()}"


def run_node(
    address: str,
    places: PeerPlaces,
    account: LocalAccount,
    keys: NodeKeys,
    *,
    data: Path | None,
    out: Path | None,
    distrust: bool,
    reporter: Reporter,
) -> tuple[dict[str, Any], Path]:
    """Take part in a task to its end; what an earlier process of this peer did is not done again.

    Args:
        address: The contract's.
        places: Chain, store, gateways; the folder is `out`.
        account: The peer's, from its keystore ...
        keys: ... with its other keys.
        data: Folder of the data set's files; None to look for them.
        out: The peer's folder; None for one of its own under the user's data folder.
        distrust: Whether the node behind --chain is held against a re-execution of the task.
        reporter: Told of the progress.

    Returns:
        The report, and the folder.

    Raises:
        UsageError: the chain is a file, which one process can have.
        QrunError, LedgerError: in one line that says what to do.
        Stopped: the process is to end.
    """
    if not is_url(places.chain):
        raise UsageError(
            "an embedded chain has one writer: peers in processes of their own need a node that serves them all.",
            "Name one with --chain http://...; for a task in one process there is `qrun experiment`.",
        )
    folder = (out or folder_of(address, account.address)).expanduser().absolute()
    with on_disk(folder, "Choose another folder with --out DIR."):
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(folder))
            memory = RunStore(f"node-{address[2:10].lower()}", folder, threads=True)
            stack.callback(memory.close)
            _check_owner(memory, address, account.address, folder)
            there = replace(places, folder=folder)
            watch = Watch(reporter)
            reporter.stage("opening chain and store")
            chain = stack.enter_context(watch.ask(there.open_chain))
            store = there.open_store()
            stack.callback(store.close)
            found = watch.ask(lambda: read_task(chain, store, address))
            playing = PeerPlay(found, account, keys, there, data, store, memory, folder, reporter, distrust)
            return playing.play(), folder


def _check_owner(memory: RunStore, task: str, account: str, folder: Path) -> None:
    """One folder, one node of one task.

    Raises:
        QrunError: it is another's.
    """
    known, now = memory.get("owner"), {"task": task, "account": account}
    if known is None:
        memory.put("owner", now)
    elif known != now:
        raise QrunError(
            f"{folder} is of account {known['account']} in task {known['task']}.", "Name another folder with --out."
        )
