"""The audit of a run, from the evidence to what is found; nothing is believed that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import UsageError
from runner.audit.checks import Findings
from runner.audit.replay import Replay
from runner.audit.sources import Evidence
from runner.audit.task_state import TaskState

if TYPE_CHECKING:
    from runner.audit.jobs import KeptJobs
    from runner.config import RunConfig


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        run: What was audited.
        where: Chain, contract and head, for the reader.
        findings: Every statement.
    """

    run: str
    where: dict[str, Any]
    findings: Findings

    @property
    def sound(self) -> bool | None:
        """False where something is; None where nothing is, but the record keeps statements from being checked."""
        if self.findings.of("false"):
            return False
        return None if any(check.withheld for check in self.findings) else True

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "format": "qrun-audit/1",
            "run": self.run,
            **self.where,
            "sound": self.sound,
            "not_checked": len(self.findings.of("not checked")),
            "counts": self.findings.counts(),
            "checks": [check.to_dict() for check in self.findings],
        }


@dataclass(frozen=True)
class WithData:
    """What is computed again from the data.

    Attributes:
        folder: The data set's files; None to look for them.
        node: Whose grades are computed again; None: everybody's.
    """

    folder: Path | None = None
    node: int | None = None


def audit(evidence: Evidence, *, data: WithData | None = None, notify: Callable[[str], None] = lambda _: None) -> Audit:
    """Check every statement of a run.

    Args:
        evidence: What there is of it (runner/audit/sources.py).
        data: Also compute again what needs the data.
        notify: Told what is being done.

    Raises:
        UsageError: the run has no node of that number.
        QrunError: the data are not those of the run, or cannot be loaded.
    """
    findings = Findings()
    notify("chain")
    _check_chain(findings, evidence)
    history = evidence.history
    state = None if history is None else Replay(history, findings).play()
    where: dict[str, Any] = {}
    if history is not None:
        where = {
            "chain_id": history.chain_id,
            "contract": history.address,
            "head": history.head,
            "state": _words(state),
        }
    if state is not None:
        _check_content(findings, evidence, state, data, notify)
    return Audit(evidence.name, where, findings)


def _words(state: TaskState | None) -> str:
    if state is None:
        return "not opened"
    if state.ended is not None:
        return "abandoned" if state.ended else "ended"
    return "being set up" if state.open is None else f"round {state.open.number} is open"


def _check_chain(findings: Findings, evidence: Evidence) -> None:
    integrity, history = evidence.integrity, evidence.history
    if integrity is None:
        findings.skipped(
            "chain/whole", "the blocks are those of the chain, and what they log is what was executed",
            "that is the word of the node behind --chain: ask one that you trust",
        )  # fmt: skip
    else:
        for place, finding in enumerate(integrity.findings):
            findings.false(f"chain/whole/{place}", "the chain's file is whole", finding, "chain.sqlite")
        if not integrity.findings:
            findings.test(True, "chain/whole", f"the chain's file is whole: {integrity.blocks} blocks that link, "
                          f"{integrity.values} values under their hashes")  # fmt: skip
    if history is None:
        findings.false("chain/read", "the task's log can be read", evidence.problem)
        return
    findings.test(
        history.code_is_ours, "chain/code", "the contract is this version's FederatedRounds",
        "there is other code at its address" if history.code else "there is no contract at its address",
        history.address,
    )  # fmt: skip


def _check_content(
    findings: Findings, evidence: Evidence, state: TaskState, data: WithData | None, notify: Callable[[str], None]
) -> None:
    from runner.audit import figures, files
    from runner.audit.models import Audited, check_config, check_map, skeleton
    from runner.audit.task_view import TaskView

    history = evidence.history
    assert history is not None
    notify("config and feature map")
    files.check_manifest(findings, evidence, state)
    result = figures.read_result(findings, evidence, state)
    config = check_config(findings, evidence, state, figures.made_with(evidence, result))
    _check_node(data, len(state.accounts) if config is None else config.nodes)
    feature_map = None if config is None else check_map(findings, evidence.store, state, config)
    models, final = None, None
    if config is not None and state.map_digest is not None:
        from contracts.cid import RAW, Cid

        notify("models")
        view = TaskView(state, history.chain_id, history.address)
        map_cid = str(Cid(RAW, state.map_digest))
        faults = figures.stated_faults(result)
        models = Audited(findings, config, view, evidence.store, model=skeleton(config), map_cid=map_cid, faults=faults)
        models.check_start()
        for number in sorted(state.rounds):
            models.published(number)
        if state.ended is False:
            notify("final aggregate")
            final = models.check_final(state.conclusions)
    elif config is None:
        findings.withheld("models/all", "the models are those on the chain", "without the config none can be checked")
    _attest(findings, state, data)
    if result is not None:
        notify("result")
        figures.check_result(
            findings, result, evidence=evidence, history=history, state=state, config=config, models=models, final=final
        )  # fmt: skip
    kept = _check_jobs(findings, evidence, state, result, config)
    if evidence.folder is not None:
        if result is not None:
            files.check_copies(findings, evidence.folder, result)
            files.check_artefacts(findings, evidence.folder, result)
        files.check_blocks(findings, evidence.folder)
        files.check_keys(findings, evidence.folder, state)
    if data is None:
        findings.skipped(
            "metrics/all", "the metrics are those of the models on the data",
            "needs the data: --data DIR names the folder of its files (`--data auto` looks for them)",
        )  # fmt: skip
        if result is not None:
            findings.skipped(
                "result/data", "data set, numbers of records, and the compiled generator are what the result says",
                "needs the data: --data DIR",
            )  # fmt: skip
        return
    if config is not None and models is not None and feature_map is not None:
        from runner.audit.recompute import Recomputation

        Recomputation(findings, config, models, feature_map, result, data, notify, kept).check()
        return
    note = findings.skipped if state.map_digest is None else findings.withheld
    note(
        "metrics/all", "the metrics are those of the models on the data", "the config or the feature map cannot be had"
    )


def _check_jobs(
    findings: Findings,
    evidence: Evidence,
    state: TaskState,
    result: Mapping[str, Any] | None,
    config: RunConfig | None,
) -> KeptJobs | None:
    """The jobs on devices that the result lists; None without a result."""
    if result is None:
        return None
    from runner.audit.devices import check_devices
    from runner.audit.jobs import KeptJobs

    kept = KeptJobs(findings, result, evidence.store)
    kept.check(state, result)
    if config is not None:
        check_devices(findings, config, state, result, kept)
    return kept


def _check_node(data: WithData | None, nodes: int) -> None:
    if data is not None and data.node is not None and not 0 <= data.node < nodes:
        raise UsageError(f"--node {data.node}: the run has no such node.", f"Its nodes are 0 to {nodes - 1}.")


def _attest(findings: Findings, state: TaskState, data: WithData | None) -> None:
    """What rests on data that only its node has, and is its word."""
    for number, round_ in sorted(state.rounds.items()):
        for node in sorted(round_.rows):
            if data is None or (data.node is not None and data.node != node):
                findings.attested(
                    f"grades/{number}/{node}/values", f"round {number}, node {node}: the grades are what it found",
                    "they rest on its own records; with them, --data computes them again",
                )  # fmt: skip
        for node in sorted(round_.submissions):
            findings.attested(
                f"models/{number}/{node}/resources", f"round {number}, node {node}: what the model took",
                "time, circuits and shots are its own statement, and pay nothing",
            )  # fmt: skip
            if data is None:
                findings.attested(
                    f"metrics/{number}/{node}", f"round {number}, node {node}: the metrics of its model",
                    "they are of its own validation records",
                )  # fmt: skip
