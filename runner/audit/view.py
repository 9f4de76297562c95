"""How an audit is shown: a table by subject, then every false statement, then what was not checked and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from runner.audit.audit import Audit
from runner.audit.checks import VERDICTS, Check
from runner.view import emit, show_table

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
    place = f" (chain {where['chain_id']}, contract {where['contract']}, {where['state']})" if where else ""
    show_table(f"Audit of {audit.run}{place}", ["statements about", *VERDICTS], rows)
    false = audit.findings.of("false")
    if false:
        emit(Text("False:", style="bold red"))
        for check in false[:MOST]:
            emit(Text(_sentence(check)))
        if len(false) > MOST:
            emit(Text(f"... and {len(false) - MOST} more (--json has all)"))
    for check in audit.findings.of("not checked"):
        emit(Text(f"Not checked: {check.claim}: {check.reason}", style="yellow"))
    if totals["attested"]:
        emit(Text("Attested: on the record under its author's key, but resting on what only the author has (--json)."))
    told = f"{len(false)} statements are false." if len(false) != 1 else "One statement is false."
    emit(Text(told if false else "Nothing is false.", style="bold red" if false else "bold green"))


def _sentence(check: Check) -> str:
    where = f" ({check.where})" if check.where else ""
    return f"- {check.claim}: {check.reason.rstrip('.')}{where}"
