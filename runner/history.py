"""Runs that were made: described for `qrun runs list` and `qrun runs show`, and removed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import QrunError
from runner.jobs import ledger_of
from runner.ledger import Account
from runner.progress import Verdict
from runner.run_folder import read_manifest, read_result
from runner.store import RunIndex, RunInfo, RunStore, on_disk

if TYPE_CHECKING:
    from contracts.rounds import FederatedRounds


def _line(info: RunInfo) -> dict[str, Any]:
    out: dict[str, Any] = {
        "run": info.run,
        "state": _state(info),
        "created": datetime.fromtimestamp(info.created, UTC).isoformat(timespec="seconds"),
        "path": str(info.path),
    }
    try:
        config, _ = read_manifest(info.path)
        out |= {"experiment": config.experiment, "backend": config.backend, "engine": config.engine}
        if info.state == "finished":
            result = read_result(info.path)
            out |= {"source": result["dataset"]["source"], "metrics": result["metrics"]}
    except QrunError:
        pass
    return out


def _state(info: RunInfo) -> str:
    """The folder's state; "waiting" where the run has stopped and jobs of it are on their way to a device."""
    if info.state != "interrupted":
        return info.state
    with suppress(QrunError):
        if any(job.state == "sent" and not job.local for job in ledger_of(info)[0]):
            return "waiting"
    return info.state


def describe_runs() -> list[dict[str, Any]]:
    """All runs, oldest first, a dict each: run, state, created, path, and what is known of config and metrics."""
    index = RunIndex()
    try:
        return [_line(info) for info in index.list()]
    finally:
        index.close()


def describe_run(name: str) -> dict[str, Any]:
    """One run: its line, its config, its jobs on devices (`runner.ledger.Account`; None where it has none), its result
    if it is finished, else how to go on."""
    index = RunIndex()
    try:
        info = index.find(name)
    finally:
        index.close()
    out = _line(info)
    if (info.path / "config.json").exists():
        config, manifest = read_manifest(info.path)
        out |= {
            "config": config.model_dump(mode="json"),
            "places": manifest["places"],
            "versions": manifest["versions"],
        }
    jobs, sessions = ledger_of(info)
    out["jobs"] = Account.of(jobs, sessions).to_dict() if jobs else None
    out["result"] = read_result(info.path) if info.state == "finished" else None
    return out


def remove_run(name: str) -> None:
    """Delete a run's folder and its line.

    Raises:
        QrunError: the run is being worked on.
    """
    index = RunIndex()
    try:
        index.remove(index.find(name, exact=True))
    finally:
        index.close()


def read_chain(name: str, url: str | None = None) -> dict[str, Any]:
    """What stands on the chain about a run, read from the chain itself and from nowhere else.

    Args:
        name: The run.
        url: JSON-RPC node, for a run whose chain is not in its folder and whose URL held a key.

    Raises:
        QrunError: the run has no contract yet.
    """
    from contracts.chain import connect
    from contracts.rounds import FederatedRounds
    from runner.places import Places

    index = RunIndex()
    try:
        info = index.find(name)
    finally:
        index.close()
    _, manifest = read_manifest(info.path)
    known = None
    if (info.path / "state.sqlite").exists():
        with on_disk(info.path):
            store = RunStore(info.run, info.path)
            try:
                known = store.get("contract")
            finally:
                store.close()
    if known is None:
        raise QrunError(f"run {info.run} has nothing on a chain yet.", f"`qrun runs resume {info.run}`.")
    where = Places.recall(manifest["places"], Places(chain=url)).chain or info.path / "chain.sqlite"
    if isinstance(where, Path) and not where.exists():
        raise QrunError(f"the chain of run {info.run} ({where}) is gone.", "Without it there is no record to show.")
    with connect(where) as chain:
        contract = FederatedRounds.attach(chain, known["address"])
        task = contract.task
        digest = contract.map_digest()
        return {
            "kind": chain.kind,
            "chain_id": chain.chain_id,
            "contract": contract.address,
            "head": chain.head_number(),
            "gas_used": contract.gas_used(),
            "experiment": task.experiment,
            "config_digest": task.config_digest.hex(),
            "data_source": task.data_source,
            "feature_map_digest": None if digest is None else digest.hex(),
            "max_rounds": task.max_rounds,
            "settled_rounds": contract.settled_rounds(),
            "phase": contract.phase().name.lower(),
            "open_round": contract.open_round(),
            "base": contract.base(),
            "nodes": [
                {
                    "id": n.index,
                    "address": n.address,
                    "exchange_key": n.exchange_key.hex(),
                    "signing_key": None if n.signing_key is None else n.signing_key.hex(),
                    "reputation": n.reputation / 100,
                    "excluded": n.excluded,
                }
                for n in contract.nodes()
            ],
            "rounds": [_round_on_chain(contract, number) for number in contract.rounds()],
        }


def _round_on_chain(contract: FederatedRounds, number: int) -> dict[str, Any]:
    grades, bound = contract.grades(number), contract.commitments(number)
    settled = contract.settlement(number)
    verdict = None if settled is None else Verdict.of(settled)
    state = "void" if number in contract.voided() else ("settled" if verdict is not None else "open")
    return {
        "number": number,
        "base": contract.base_of(number),
        "state": state,
        "settled": verdict is not None,
        "nodes": [
            {
                "id": s.node,
                "cid": s.cid,
                "signature": s.signature,
                "tx": s.tx,
                "block": s.block,
                "metrics": s.metrics,
                "resources": s.resources,
                "committed": s.node in bound,
                "grades": {str(k): v for k, v in sorted(grades.get(s.node, {}).items())},
                "score": None if verdict is None else verdict.scores.get(s.node),
                "reputation": None if verdict is None else verdict.reputation[s.node],
                "said": "" if verdict is None else verdict.words(s.node),
            }
            for s in contract.submissions(number)
        ],
        "absent": sorted(contract.active(number) - {s.node for s in contract.submissions(number)}),
        "settlement": None if verdict is None else verdict.to_json(),
    }
