"""The reports of peers in processes of their own, each against chain and store, and against the others'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.errors import QrunError
from contracts.cid import RAW, Cid
from contracts.records import METRIC_NAMES
from runner.audit.checks import Findings
from runner.audit.figures import Whole, compare
from runner.audit.kept import TOLERANCE
from runner.audit.models import FinalModel
from runner.audit.sums import Calibrated
from runner.audit.task_state import TaskState
from runner.audit.task_view import TaskView
from runner.config import RunConfig
from runner.peers.report_form import PARTS
from runner.result import DIGITS

ATTESTED = {
    "backend": "the device and the compiled generator are the node's own statement",
    "versions": "the versions of its software are the node's own statement",
    "seconds": "the seconds are the node's own statement",
    "memory_mb": "the memory that it took is the node's own statement",
}
ROUNDED = 1.5 * 10.0**-DIGITS
"""What is rounded to DIGITS on both sides may differ by so much."""

Reports = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class ReportChecks:
    """What reports are held against.

    Attributes:
        findings: Where statements are noted.
        reports: By the node that stated them.
        view: The task.
        config: Its config; None where it cannot be had.
        final: Its final model; None where it cannot be made.
        calibrated: What the last sums come to; None where they are not complete, or not known.
        with_data: Whether the metrics are computed again: then they are no matter of words.
    """

    findings: Findings
    reports: Reports
    view: TaskView
    config: RunConfig | None
    final: FinalModel | None
    calibrated: Calibrated | None
    with_data: bool

    def check(self) -> None:
        """Every statement of every report."""
        for node, body in sorted(self.reports.items()):
            compare(self.findings, f"result/node/{node}", body, self._expected(node), what=f"node {node}'s report")
            self._check_calibration(node, body)
            self._check_threshold(node, body)
            self._attest(node)
        for part in PARTS:
            self._check_alike(part)

    @property
    def _state(self) -> TaskState:
        return self.view.state

    def _expected(self, node: int) -> dict[str, Any]:
        """What a node's report has to say, as far as chain and store know."""
        state, config = self._state, self.config
        schedule = "async" if state.spec.rules.asynchronous else "sync"
        out: dict[str, Any] = {
            "task": {"chain_id": self.view.chain.chain_id, "contract": self.view.address, "schedule": schedule},
            "node": {
                "id": node,
                "address": state.accounts[node],
                "reputation": state.standings[node].reputation / 100,
                "excluded": state.standings[node].excluded,
            },
            "config_digest": state.spec.config_digest.hex(),
            "dataset": {"source": state.spec.data_source},
            "models": [
                {"round": s.round, "cid": s.cid, "tx": s.tx, "metrics": Whole(s.metrics)}
                for _, round_ in sorted(state.rounds.items())
                if (s := round_.submissions.get(node)) is not None
            ],
        }
        if config is not None:
            out["config"] = {name: Whole(value) for name, value in config.model_dump(mode="json").items()}
        if state.map_digest is not None:
            out["feature_map"] = {"cid": str(Cid(RAW, state.map_digest))}
        if self.final is not None:
            out["final"] = {"cid": self.final.cid, "round": self.final.base}
        return out

    def _check_calibration(self, node: int, body: Mapping[str, Any]) -> None:
        """Whose records the threshold is from: of those who took part in the last sums, or of this node alone."""
        told = body["final"]["calibrated_by"]
        wanted = self._calibrated_by(node)
        if wanted is None:
            known = self._state.registered.keys()
            holds = told == sorted(set(told)) and set(told) <= known and bool(told)
            reason = f"it says {told}: no list of registered nodes"
        else:
            holds, reason = told == list(wanted), f"it says {told}; by the announcements it is {list(wanted)}"
        self.findings.test(
            holds, f"result/node/{node}/final/calibrated_by",
            f"node {node}'s report names the nodes whose records its threshold is from", reason,
        )  # fmt: skip

    def _calibrated_by(self, node: int) -> tuple[int, ...] | None:
        if self.calibrated is None:
            return None
        return self.calibrated.roster if node in self.calibrated.roster else (node,)

    def _check_threshold(self, node: int, body: Mapping[str, Any]) -> None:
        """That its threshold is the one that the last sums give."""
        id_, claim = f"result/node/{node}/threshold", f"node {node}'s threshold is that of the announced counts"
        told = {part["threshold"] for part in body["metrics"].values() if part is not None}
        wanted = None if self.calibrated is None else self.calibrated.threshold
        if wanted is None or self.calibrated is None or node not in self.calibrated.roster:
            self.findings.test(len(told) <= 1, id_, f"node {node}'s report has one threshold", f"it has {sorted(told)}")
            return
        wrong = [value for value in sorted(told) if abs(value - wanted) > ROUNDED]
        self.findings.test(not wrong, id_, claim, f"it says {wrong}; from the announced counts follows {wanted:.6f}")

    def _check_alike(self, part: str) -> None:
        """The final model is one, and what it is scored on is common: reports with one calibration say the same."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for node, body in sorted(self.reports.items()):
            groups.setdefault(tuple(body["final"]["calibrated_by"]), []).append(node)
        for nodes in groups.values():
            told = {node: self.reports[node]["metrics"][part] for node in nodes}
            usual = _median(list(told.values()))
            for node, figures in told.items() if len(nodes) > 1 else ():
                apart = _apart(figures, usual)
                self.findings.test(
                    not apart, f"result/node/{node}/metrics/{part}",
                    f"node {node}'s report has the final metrics on {part} that the others' have",
                    f"it differs at {apart}: {figures}, and the median of them is {usual}"[:300],
                )  # fmt: skip

    def _attest(self, node: int) -> None:
        why = "it stated the digest of the report that holds it"
        for key, claim in ATTESTED.items():
            if not (key == "backend" and self.with_data):
                self.findings.attested(f"result/node/{node}/{key}", f"node {node}: {claim}", why)
        if not self.with_data:
            self.findings.attested(
                f"metrics/final/{node}", f"node {node}: the final model's metrics",
                "they are of the data, with which --data computes them again",
            )  # fmt: skip

    def check_witnessed(self, block_hash: Callable[[int], str] | None) -> None:
        """The block up to which a node executed the task, against the chain that is read here.

        Args:
            block_hash: Hash (0x...) of a block by its number, empty where there is none; None: nobody to ask.
        """
        for node, body in sorted(self.reports.items()):
            id_, told = f"result/node/{node}/witnessed", body["witnessed"]
            claim = f"node {node} executed the task again on the chain that is read here"
            if told is None:
                self.findings.skipped(id_, claim, "it believed the node behind its --chain (`--trust-chain`)")
            elif block_hash is None:
                self.findings.skipped(id_, claim, "there is no node to ask for it")
            else:
                found = _hash(block_hash, told["block"])
                self.findings.test(
                    found == told["hash"], id_, claim,
                    f"its block {told['block']} has the hash {told['hash'][:18]}…; here: {found[:18] or 'none'}…",
                )  # fmt: skip


def _hash(block_hash: Callable[[int], str], number: int) -> str:
    try:
        return block_hash(number) if number < 1 << 64 else ""
    except (QrunError, ValueError, KeyError, TypeError):
        return ""


def _median(told: list[Any]) -> dict[str, float] | None:
    """What most reports say of a part; None where most have nothing."""
    figures = [one for one in told if one is not None]
    if 2 * len(figures) <= len(told):
        return None
    return {name: float(np.median([one[name] for one in figures])) for name in METRIC_NAMES}


def _apart(figures: Mapping[str, float] | None, usual: Mapping[str, float] | None) -> list[str]:
    """The names of what differs more than machines do."""
    if figures is None or usual is None:
        return [] if figures is usual else ["all"]
    return [name for name in METRIC_NAMES if abs(figures[name] - usual[name]) > TOLERANCE]
