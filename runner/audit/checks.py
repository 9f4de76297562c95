"""What an audit says: one Check a statement, gathered in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["holds", "false", "attested", "not checked"]
VERDICTS: tuple[Verdict, ...] = ("holds", "false", "attested", "not checked")

SUBJECTS = (
    "chain",
    "config",
    "registration",
    "feature map",
    "announcements",
    "rounds",
    "models",
    "jobs",
    "signatures",
    "aggregation",
    "grades",
    "settlements",
    "rollbacks",
    "end",
    "result",
    "metrics",
    "files",
)
"""What statements are about, in the order in which they are shown."""


@dataclass(frozen=True)
class Check:
    """One statement, and whether it holds.

    Attributes:
        id: Names the statement in this audit and in every other one of the same run, e.g. "models/2/1/bytes".
        subject: One of SUBJECTS.
        claim: What is stated, in words.
        verdict: "holds" and "false" were found out here; "attested" is a node's word, on the record but not provable;
            "not checked" could be checked with what is missing here.
        reason: Why it is false, only attested, or not checked.
        where: Where it stands: a transaction, a CID, a file.
        withheld: It is not checked because of the record itself, or of what its keeper does not tell: nothing that
            the reader could add would do, and a lie could hide there.
    """

    id: str
    subject: str
    claim: str
    verdict: Verdict
    reason: str = ""
    where: str = ""
    withheld: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "id": self.id,
            "subject": self.subject,
            "claim": self.claim,
            "verdict": self.verdict,
            "reason": self.reason,
            "where": self.where,
            "withheld": self.withheld,
        }


@dataclass
class Findings:
    """The statements of an audit, as they are found."""

    checks: list[Check] = field(default_factory=list)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def test(self, holds: bool, id_: str, claim: str, reason: str = "", where: str = "") -> bool:
        """Note a statement that holds, or is false for `reason`; gives back which."""
        self._add(id_, claim, "holds" if holds else "false", "" if holds else reason, where)
        return holds

    def false(self, id_: str, claim: str, reason: str, where: str = "") -> None:
        """Note a statement that is false."""
        self._add(id_, claim, "false", reason, where)

    def attested(self, id_: str, claim: str, reason: str, where: str = "") -> None:
        """Note a statement that is a node's own word."""
        self._add(id_, claim, "attested", reason, where)

    def skipped(self, id_: str, claim: str, reason: str, where: str = "") -> None:
        """Note a statement that cannot be checked with what is here."""
        self._add(id_, claim, "not checked", reason, where)

    def withheld(self, id_: str, claim: str, reason: str, where: str = "") -> None:
        """Note a statement that the record itself keeps from being checked: with it the audit is not whole."""
        self._add(id_, claim, "not checked", reason, where, withheld=True)

    def told(self, agrees: bool, id_: str, claim: str, reason: str, where: str = "", *, doubt: str) -> None:
        """Note a statement as `test` does; with a `doubt` it rests on somebody's word, and is not checked for that.

        A word that contradicts itself is false all the same.
        """
        if doubt and agrees:
            self.withheld(id_, claim, doubt, where)
        else:
            self.test(agrees, id_, claim, reason, where)

    def counts(self) -> dict[str, dict[Verdict, int]]:
        """How many statements of each verdict there are, by subject."""
        out: dict[str, dict[Verdict, int]] = {}
        for subject in SUBJECTS:
            of = [check.verdict for check in self.checks if check.subject == subject]
            if of:
                out[subject] = {verdict: of.count(verdict) for verdict in VERDICTS}
        return out

    def of(self, verdict: Verdict) -> list[Check]:
        """The statements of a verdict, by subject, and in the order in which they were found."""
        found = [check for check in self.checks if check.verdict == verdict]
        return sorted(found, key=lambda check: SUBJECTS.index(check.subject))

    def _add(self, id_: str, claim: str, verdict: Verdict, reason: str, where: str, *, withheld: bool = False) -> None:
        subject = id_.partition("/")[0]
        if subject not in SUBJECTS:
            raise ValueError(f"an audit has no subject {subject!r}")
        self.checks.append(Check(id_, subject, claim, verdict, reason, where, withheld))
