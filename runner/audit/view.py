"""How an audit is shown (a table by subject, then every false statement), and a task's transactions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from runner.audit.checks import VERDICTS, Check
from runner.tables import emit, show_table

if TYPE_CHECKING:
    from contracts.history import History
    from runner.audit.audit import Audit

MOST = 50
"""So many false statements are spelled out; --json has all."""


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Tell on stderr what is being checked, where that is a terminal."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading chain and store") as status:
        yield lambda text: status.update(f"checking: {text}")


def show_audit(audit: Audit) -> None:
    """The audit on stdout."""
    rows = []
    totals = dict.fromkeys(VERDICTS, 0)
    for subject, counts in audit.findings.counts().items():
        rows.append([subject, *(str(counts[verdict] or "-") for verdict in VERDICTS)])
        for verdict in VERDICTS:
            totals[verdict] += counts[verdict]
    rows.append(["all", *(str(totals[verdict]) for verdict in VERDICTS)])
    where = audit.where
    if where:
        place = f"contract {where['contract']} on chain {where['chain_id']}, block {where['head']}"
        emit(Text(f"{place}: {where['state']}"))
    show_table(f"Audit of {_printable(audit.run)}", ["statements about", *VERDICTS], rows)
    false = audit.findings.of("false")
    if false:
        emit(Text("False:", style="bold red"))
        for check in false[:MOST]:
            emit(Text(_sentence(check)))
        if len(false) > MOST:
            emit(Text(f"... and {len(false) - MOST} more (--json has all)"))
    unchecked = audit.findings.of("not checked")
    for check in unchecked[:MOST]:
        emit(Text(_printable(f"Not checked: {check.claim}: {check.reason}"), style="yellow"))
    if len(unchecked) > MOST:
        emit(Text(f"... and {len(unchecked) - MOST} more (--json has all)"))
    if totals["attested"]:
        emit(Text("Attested: on the record under its author's key, but resting on what only the author has (--json)."))
    emit(Text(_verdict(audit), style="bold green" if audit.sound else "bold red"))


def _verdict(audit: Audit) -> str:
    """The last line: what is false, and how much was not checked."""
    false, unchecked = len(audit.findings.of("false")), len(audit.findings.of("not checked"))
    withheld = sum(check.withheld for check in audit.findings)
    left = f"{unchecked} statements were not checked" if unchecked != 1 else "one statement was not checked"
    if audit.sound is None:
        kept = "all of them" if withheld == unchecked else f"{withheld} of them"
        kept = "it" if unchecked == 1 else kept
        return f"This cannot be audited: {left}, and the record itself keeps {kept} from being checked."
    told = "Nothing is false" if audit.sound else "One statement is false"
    told = f"{false} statements are false" if false > 1 else told
    return f"{told}; {left}." if unchecked else f"{told}."


def show_story(history: History, told: Sequence[Mapping[str, Any]]) -> None:
    """A task's transactions, one a line. Lines, not a table: a thousand of them are laid out at once."""
    nodes = max((len(row["who"]) for row in told if not row["who"].startswith("0x")), default=0)
    lines = [
        f"Task {history.address} on chain {history.chain_id}, block {history.head}",
        f"{'block':>6}  {'time (UTC)':<19}  {'who':<{nodes}}  {'gas':>9}  what",
    ]
    for row in told:
        time = row["time"][:19].replace("T", " ")
        lines.append(f"{row['block']:>6}  {time}  {row['who']:<{nodes}}  {row['gas']:>9,}  {row['what']}")
    lines.append(f"{len(told)} transactions, {sum(row['gas'] for row in told):,} gas")
    if not history.complete:
        lines.append("Transactions that logged nothing (reverted ones, pages of a settlement) are not among them.")
    sys.stdout.write("\n".join(lines) + "\n")


def _sentence(check: Check) -> str:
    where = f" ({check.where})" if check.where else ""
    return _printable(f"- {check.claim}: {check.reason.rstrip('.')}{where}")


def _printable(text: str) -> str:
    """Without what would steer a terminal: a part of it may come from a hostile file."""
    return "".join(c if c.isprintable() else "?" for c in text)
