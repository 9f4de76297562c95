"""What the nodes stated at the end: one result that all of them made together, or a report of each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from circuits.errors import QrunError
from contracts.cid import RAW, Cid
from contracts.errors import ContentError
from runner.audit.checks import Findings
from runner.audit.figures import read_result
from runner.audit.sources import Evidence
from runner.audit.task_state import TaskState
from runner.peers.report_form import FORMAT, MAX_BYTES, format_of, read_report


@dataclass(frozen=True)
class Stated:
    """What was stated, as far as it can be had and is of a known form.

    Attributes:
        result: Of a run that one process played for all nodes.
        reports: By node, where each node played for itself (docs/peers.md).
        apart: Whether each did.
    """

    result: Mapping[str, Any] | None = None
    reports: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    apart: bool = False

    @property
    def any_report(self) -> Mapping[str, Any] | None:
        """One of the reports, where there are any."""
        return next(iter(self.reports.values()), None)


def read_stated(findings: Findings, evidence: Evidence, state: TaskState) -> Stated:
    """Find what the nodes stated, by its digests on the chain, and check that it is that."""
    found = _find(evidence, state)
    if not _apart(evidence, state, found):
        return Stated(read_result(findings, evidence, state))
    _check_own(findings, evidence, state)
    reports = {}
    for node, (_, digest) in sorted(state.conclusions.items()):
        body = _report(findings, node, digest, found.get(digest))
        if body is not None:
            reports[node] = body
    missing = sorted(state.registered.keys() - state.excluded - state.conclusions.keys())
    if missing and state.ended is not None:
        findings.skipped("end/all", "every node stated a report", f"nodes {missing} stated none (yet)")
    return Stated(None, reports, True)


def _find(evidence: Evidence, state: TaskState) -> dict[bytes, bytes]:
    """The stated files that can be had, by digest: from the folder, else from the store, where they are one block."""
    found = {hashlib.sha256(data).digest(): data for data in (evidence.result, evidence.report) if data is not None}
    for _, digest in state.conclusions.values():
        if digest not in found:
            try:
                found[digest] = evidence.store.get(str(Cid(RAW, digest)), max_bytes=MAX_BYTES)
            except ContentError:
                continue
    return found


def _apart(evidence: Evidence, state: TaskState, found: Mapping[bytes, bytes]) -> bool:
    """Whether the nodes stated reports of their own: by the folder, else by what most of the stated files are."""
    if evidence.result is not None or evidence.of_node:
        return evidence.result is None
    formats = Counter(
        format_of(found[digest]).partition("/")[0] for _, digest in state.conclusions.values() if digest in found
    )
    if formats:
        return formats["qrun-node"] >= formats["qrun-result"]
    return len({digest for _, digest in state.conclusions.values()}) > 1


def _check_own(findings: Findings, evidence: Evidence, state: TaskState) -> None:
    """That the report in the folder is what its node stated."""
    claim = "report.json is what a node stated on the chain"
    if evidence.report is not None:
        digest = hashlib.sha256(evidence.report).digest()
        findings.test(
            digest in {report for _, report in state.conclusions.values()}, "files/report.json", claim,
            f"nobody stated its digest, {digest.hex()[:16]}…", "report.json",
        )  # fmt: skip
    elif evidence.of_node:
        findings.skipped("files/report.json", claim, "there is none: the node has not finished")


def _report(findings: Findings, node: int, digest: bytes, data: bytes | None) -> Mapping[str, Any] | None:
    """A node's report; None where it cannot be had, or is none."""
    cid = str(Cid(RAW, digest))
    claim = f"the report that node {node} stated is here"
    if data is None:
        findings.skipped(f"end/{node}/report", claim, f"there is no file {cid} in the store", cid)
        return None
    findings.test(True, f"end/{node}/report", claim, where=cid)
    reason = ""
    try:
        return read_report(data)
    except QrunError as error:
        reason = error.message
    findings.false(f"result/node/{node}/form", f"what node {node} stated is a report of format {FORMAT}", reason, cid)
    return None
