"""The audit of a run, from the evidence to what is found; nothing is believed that can be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.audit.checks import Findings
from runner.audit.executed import check_executed
from runner.audit.replay import Replay
from runner.audit.sources import Evidence
from runner.audit.task_state import TaskState


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


def audit(
    evidence: Evidence,
    *,
    data: WithData | None = None,
    witness: bool | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Check every statement of a run.

    Args:
        evidence: What there is of it (runner/audit/sources.py).
        data: Also compute again what needs the data.
        witness: Whether a task behind a URL is executed again; None: where it has few blocks.
        notify: Told what is being done.

    Raises:
        UsageError: the run has no node of that number.
        QrunError: the data are not those of the run, or cannot be loaded.
    """
    findings = Findings()
    notify("chain")
    _check_chain(findings, evidence, witness)
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
        from runner.audit.content import Content

        Content(findings, evidence, state, data, notify).check()
    return Audit(evidence.name, where, findings)


def _words(state: TaskState | None) -> str:
    if state is None:
        return "not opened"
    if state.ended is not None:
        return "abandoned" if state.ended else "ended"
    return "being set up" if state.open is None else f"round {state.open.number} is open"


def _check_chain(findings: Findings, evidence: Evidence, witness: bool | None) -> None:
    integrity, history = evidence.integrity, evidence.history
    if integrity is None:
        if history is not None:
            check_executed(findings, history, evidence.chain, witness)
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
