"""A settlement as the log has it, against the one that follows from the revealed grades."""

from __future__ import annotations

from dataclasses import replace

from contracts.records import SettlementRecord
from contracts.reputation import Settlement
from runner.audit.checks import Findings
from runner.audit.task_state import Round


def check_settlement(findings: Findings, round_: Round, record: SettlementRecord, settled: Settlement) -> None:
    """Every figure of a settlement, a statement each.

    Args:
        findings: Where they are noted.
        round_: The round, with the grades that were revealed.
        record: What the log says.
        settled: What contracts.reputation.settle makes of the grades.
    """
    follows = {
        "scores": (record.scores, settled.scores, "the scores are the weighted medians of the grades"),
        "asymmetry": (record.asymmetry, settled.asymmetry, "the asymmetry of each node is that of its grades"),
        "strong": (record.strong, settled.strong, "it is strong or weak as the median score says"),
        "reputation": (
            record.reputation,
            tuple(standing.reputation for standing in settled.standings),
            "every reputation follows from the grades and the rounds before",
        ),
        "low": (record.low, settled.low, "who is low is so by the rules"),
        "flagged": (record.flagged, settled.flagged, "who is flagged is so by the rules"),
        "excluded": (record.excluded, settled.excluded, "who is excluded is so by the rules"),
    }
    for name, (logged, computed, claim) in follows.items():
        findings.test(
            logged == computed,
            f"settlements/{round_.number}/{name}",
            f"round {round_.number}: {claim}",
            _differ(logged, computed),
            record.tx,
        )


def record_of(settled: Settlement, log: SettlementRecord) -> SettlementRecord:
    """What the log ought to say of a settlement, at the place where it stands."""
    return replace(
        log,
        scores=settled.scores,
        asymmetry=settled.asymmetry,
        strong=settled.strong,
        reputation=tuple(standing.reputation for standing in settled.standings),
        low=settled.low,
        flagged=settled.flagged,
        excluded=settled.excluded,
    )


def _differ(logged: object, computed: object) -> str:
    """The first node whose figure differs, else both."""
    if isinstance(logged, tuple) and isinstance(computed, tuple) and len(logged) == len(computed):
        for node, (one, other) in enumerate(zip(logged, computed, strict=True)):
            if one != other:
                return f"node {node} has {one} in the log; it is {other}"
    if isinstance(logged, frozenset) and isinstance(computed, frozenset):
        return f"in the log it is {sorted(logged)}; it is {sorted(computed)}"
    return f"in the log it is {logged}; it is {computed}"
