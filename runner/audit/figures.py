"""result.json against chain and store: every figure that they have is taken from them and compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits.errors import QrunError
from circuits.hostile import load_json
from contracts.cid import RAW, Cid
from contracts.errors import ContentError
from contracts.history import History
from runner.audit.checks import Findings
from runner.audit.models import Audited, FinalModel, version_of
from runner.audit.sources import Evidence
from runner.audit.task_state import Round, TaskState
from runner.config import RunConfig
from runner.progress import Verdict
from runner.result import KINDS, spread
from runner.run_folder import MAX_BYTES
from runner.schema import FORMAT, OPTIONAL, keys_of

ATTESTED = {
    "versions": "the versions of the software are the run's own statement",
    "resumed_with": "the versions of later attempts are the run's own statement",
    "seconds": "the seconds are the run's own statement",
    "losses": "the losses of training are the nodes' own statements",
    "store": "where the run kept its files is its own statement",
    "run": "the run's name is its own",
}
FILE = "snapshot"
"""What the canonical config calls a device that was read from a snapshot file (runner/config.py)."""
_NOTHING = object()


def read_result(findings: Findings, evidence: Evidence, state: TaskState) -> dict[str, Any] | None:
    """The run's result, and whether it is the report that the nodes stated; None where there is none."""
    data, where = evidence.result, "result.json"
    stated = sorted(report for _, report in state.conclusions.values())
    if data is None and stated:
        # What most nodes stated; of several that are stated as often the first.
        cid = str(Cid(RAW, max(stated, key=stated.count)))
        try:
            data, where = evidence.store.get(cid, max_bytes=MAX_BYTES), cid
        except ContentError:
            findings.skipped("end/report", "the report that the nodes stated is here", "there is no result.json, "
                             f"and no file {cid} in the store (one of more than 256 KiB has another CID)")  # fmt: skip
    if data is None:
        if evidence.folder is not None:
            findings.skipped("result/file", "the run's result says what chain and store say",
                             "the run has none: it is not finished")  # fmt: skip
        return None
    digest = hashlib.sha256(data).digest()
    for node, (_, report) in sorted(state.conclusions.items()):
        findings.test(
            report == digest, f"end/{node}/report", f"node {node} states the digest of this result",
            f"it states {report.hex()[:16]}…, and the file has {digest.hex()[:16]}…: not the file that it stated",
            where,
        )  # fmt: skip
    missing = sorted(state.registered.keys() - state.conclusions.keys())
    if missing and state.ended is not None:
        findings.skipped("end/all", "every node stated this result", f"nodes {missing} stated none")
    try:
        result = load_json(data, max_bytes=MAX_BYTES, what=where)
        sound = isinstance(result, dict) and frozenset(result) - OPTIONAL == keys_of(result["format"])
    except (QrunError, KeyError, TypeError):
        sound, result = False, None
    named = result["format"] if sound else FORMAT
    findings.test(sound, "result/form", f"the result is of format {named}, with its keys and no others",
                  "it is no JSON, or of another format", where)  # fmt: skip
    return result if sound else None


def stated_faults(result: Mapping[str, Any] | None) -> dict[tuple[int, int], str] | None:
    """(round, node) -> the fault that the result names; None without a result."""
    if result is None:
        return None
    try:
        return {(int(r["number"]), int(n["id"])): str(n["fault"]) for r in result["rounds"] for n in r["nodes"]}
    except (KeyError, TypeError, ValueError):
        return None


def made_with(evidence: Evidence, result: Mapping[str, Any] | None) -> str | None:
    """The version of qrun that the run's own files name; None where they name none."""
    found: Any = result
    try:
        if evidence.manifest is not None:
            found = load_json(evidence.manifest, max_bytes=MAX_BYTES, what="config.json")
        return version_of(found["versions"])
    except (QrunError, KeyError, TypeError, AttributeError):
        return None


def check_result(
    findings: Findings,
    result: Mapping[str, Any],
    *,
    evidence: Evidence,
    history: History,
    state: TaskState,
    config: RunConfig | None,
    models: Audited | None,
    final: FinalModel | None,
) -> None:
    """Every figure of the result that chain or store have too."""
    expected = _expected(history, state, models)
    expected["config_digest"] = state.spec.config_digest.hex()
    if config is not None:
        named = config.model_dump(mode="json")
        if config.backend == FILE:
            del named["backend"]  # where it lies is not part of the config
        expected["config"] = {name: Whole(value) for name, value in named.items()}
        if config.runtime is not None:
            table = {name: Whole(value) for name, value in named["runtime"].items()}
            if config.runtime.run_on == FILE:
                del table["run_on"]
            expected["config"]["runtime"] = table
        said = config.mitigation
        findings.test(
            ("mitigation" in result) == (said is not None), "result/mitigation", "the result tells of mitigation where "
            "the config has it, and nowhere else", "it tells of none" if said else "it tells of one",
        )  # fmt: skip
        if said is not None:
            expected["mitigation"] = {"stack": said.stack, "apply": said.apply}
    if evidence.manifest is not None:
        expected["manifest_sha256"] = hashlib.sha256(evidence.manifest).hexdigest()
    if state.map_digest is not None:
        expected["feature_map"] = {"cid": str(Cid(RAW, state.map_digest))}
    if final is not None:
        expected["final"] = {"cid": final.cid, "round": final.base}
    expected["dataset"] = {"source": state.spec.data_source}
    compare(findings, "result", dict(result), expected)
    _check_head(findings, result, history)
    try:
        made: Any = {part: spread(result["nodes"], part) for part in ("holdout", "test")}
    except (KeyError, TypeError, AttributeError, ValueError):
        made = None
    findings.test(
        made is not None and result["spread"] == made, "result/spread",
        "the spread is that of the nodes' own models", "other figures are the least and the greatest",
    )  # fmt: skip
    for key, claim in ATTESTED.items():
        findings.attested(f"result/{key}", claim, "the nodes stated the digest of the result that holds it")


@dataclass(frozen=True)
class Whole:
    """A dict or list that is compared as a whole, not key by key."""

    value: Any


def compare(
    findings: Findings, id_: str, told: Any, expected: Any, *, what: str = "result.json", path: str = ""
) -> None:
    """What is expected, key by key, against what a result or report has at the same place.

    Args:
        findings: Where statements are noted.
        id_: Of the statement about the whole; those about its parts begin with it.
        told: What is said.
        expected: Tables and lists of what it has to say; other keys may stand beside.
        what: What says it, in words.
        path: Where in it.
    """
    if isinstance(expected, Mapping):
        for key, value in expected.items():
            found = told.get(key, _NOTHING) if isinstance(told, dict) else _NOTHING
            compare(findings, id_, found, value, what=what, path=f"{path}/{key}")
        return
    if isinstance(expected, list):
        length = len(told) if isinstance(told, list) else None
        findings.test(length == len(expected), f"{id_}{path}", f"{what} has as many {path[1:]} as the chain",
                      f"it has {length}; there are {len(expected)}")  # fmt: skip
        for place, value in enumerate(expected):
            found = told[place] if isinstance(told, list) and place < len(told) else _NOTHING
            name = value.get("number", value.get("id", place))
            compare(findings, id_, found, value, what=what, path=f"{path}/{name}")
        return
    wanted = expected.value if isinstance(expected, Whole) else expected
    shown = "nothing" if told is _NOTHING else repr(told)[:100]
    findings.test(
        told is not _NOTHING and _plain(told) == _plain(wanted), f"{id_}{path}",
        f"{what} says at {path[1:]} what chain and store say", f"it says {shown}; it is {repr(wanted)[:100]}",
    )  # fmt: skip


def _plain(value: Any) -> str:
    """JSON with sorted keys: 1, 1.0 and true are three values."""
    return json.dumps(value, sort_keys=True)


def _expected(history: History, state: TaskState, models: Audited | None) -> dict[str, Any]:
    """What the result has to say, as far as chain and store know."""
    txs: dict[tuple[str, int, int], str] = {}
    gas: dict[str, int] = {}
    used = {call.tx: call.gas for call in history.calls}
    for entry in history.entries:
        if entry.name in KINDS:
            kind = KINDS[entry.name]
            gas[kind] = gas.get(kind, 0) + used[entry.tx]
            txs[(entry.name, int(entry.args.get("round", 0)), int(entry.args.get("node", 0)))] = entry.tx
    settled = [_round(round_, txs, models) for round_ in state.rounds.values() if round_.record is not None]
    return {
        "chain": {
            "chain_id": history.chain_id,
            "contract": history.address,
            "open_tx": txs.get(("TaskOpened", 0, 0)),
            "gas_used": sum(gas.values()),
            "gas": Whole(gas),
        },
        "nodes": [
            {
                "id": node,
                "address": registration.account,
                "signing_key": None if registration.signing_key is None else registration.signing_key.hex(),
                "register_tx": txs.get(("NodeRegistered", 0, node)),
                "map_tx": txs.get(("MapProposed", 0, node)),
                "reputation": state.standings[node].reputation / 100,
                "excluded": state.standings[node].excluded,
            }
            for node, registration in sorted(state.registered.items())
        ],
        "rounds": settled,
        "rollbacks": [
            {**{k: entry.args[k] for k in ("round", "target", "spent")}, "tx": entry.tx}
            for entry in history.entries
            if entry.name == "RolledBack"
        ],
    }


def _round(round_: Round, txs: Mapping[tuple[str, int, int], str], models: Audited | None) -> dict[str, Any]:
    record = round_.record
    assert record is not None
    published = {} if models is None else models.published(round_.number)
    grades = round_.grades()
    nodes = []
    for node, submission in sorted(round_.submissions.items()):
        bound = round_.commitments.get(node)
        nodes.append(
            {
                "id": node,
                "cid": submission.cid,
                "signature": submission.signature,
                "tx": submission.tx,
                "metrics": Whole(submission.metrics),
                "resources": Whole(submission.resources),
                "grades": Whole({str(j): g for j, g in grades.get(node, {}).items()}),
                "reputation": record.reputation[node] / 100,
                "commitment": None if bound is None else bound.hex(),
                "commit_tx": txs.get(("GradesCommitted", round_.number, node)),
                "reveal_tx": txs.get(("GradesRevealed", round_.number, node)),
                **({} if models is None else {"fault": published[node].fault}),
            }
        )
    return {
        "number": round_.number,
        "base": round_.base,
        "void": round_.void,
        "nodes": nodes,
        "absent": Whole(sorted(round_.active - round_.submissions.keys())),
        "settlement": {name: Whole(value) for name, value in Verdict.of(record).to_json().items()},
    }


def _check_head(findings: Findings, result: Mapping[str, Any], history: History) -> None:
    """The head is that of when the result was made: after the last round, before the nodes stated it."""
    back = max((e.block for e in history.entries if e.name == "RolledBack"), default=-1)  # takes conclusions back
    ends = [e.block for e in history.entries if e.name == "Concluded" and e.block > back]
    played = [e.block for e in history.entries if e.name in KINDS]
    chain = result["chain"]
    head = chain.get("head") if isinstance(chain, dict) else None
    least, most = max(played, default=0), min(ends) - 1 if ends else history.head
    findings.test(
        isinstance(head, int) and least <= head <= most, "result/chain/head",
        "the result's newest block lies between the last round and the nodes' statements of it",
        f"it says {head!r}; the last round is in block {least}, the statements come after block {most}",
    )  # fmt: skip
