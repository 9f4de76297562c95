"""The attack table in a terminal: a progress bar on stderr, tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from runner.attack.cells import Line
from runner.attack.run import Table
from runner.attack.summary import FOUND, LEGEND, columns, found, kept
from runner.bar import Bar
from runner.settings import AGGREGATIONS

SPEED_SECONDS = 600.0
"""Over which the remaining time is estimated: cells differ by a factor of fifty."""


class CellBar(Bar):
    """Progress on stderr: a bar in a terminal, a line a cell elsewhere."""

    def __init__(self) -> None:
        super().__init__("reading the data", speed_seconds=SPEED_SECONDS)

    def notice(self, text: str) -> None:
        """A panel that stays, about the data."""
        self.tell("Data", text)

    def tell(self, title: str, text: str) -> None:
        """A panel that stays."""
        self.console.print(Panel(Text(text), title=title, border_style="yellow", expand=False))

    def step(self, done: int, total: int, line: Line | None) -> None:
        """So many cells are done; the last is `line`."""
        cell = None if line is None else line.cell
        said = "playing" if cell is None else f"{cell.attack} {cell.aggregation} {cell.partition} seed {cell.seed}"
        self.progress.update(self.task, completed=done, total=total, description=said)
        if not self.console.is_terminal and line is not None:
            self.console.print(f"{done}/{total} {said}: {line.seconds:.1f} s, AUROC {line.auroc:.4f}")


def show(table: Table, nodes: int) -> None:
    """Two tables a partition, or three (who is found out, slow ones by themselves, and what detection keeps)."""
    console = Console(highlight=False)
    for partition in dict.fromkeys(row.partition for row in table.rows):
        rows = [row for row in table.rows if row.partition == partition]
        title = f"{partition}, seeds: {max(row.seeds for row in rows)}, {table.source} data"
        names = [a for a in AGGREGATIONS if any(a in row.points for row in rows)]
        if any(row.seeds for row in rows):
            head, lines = columns(rows), [found(row, nodes) for row in rows]
            _print(console, title, FOUND, [line[: len(FOUND)] for line in lines])
            if slow := head[len(FOUND) :]:  # by itself: a terminal has 80 columns
                of_slow = [[line[0], *line[len(FOUND) :]] for line in lines]
                _print(console, f"{title}: slow honest nodes", ["attack", *slow], of_slow)
        _print(console, f"{title}: AUROC, points", ["attack", *names], [kept(row, names) for row in rows])
    console.print(LEGEND)


def _print(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    out = RichTable(title=title, title_justify="left")
    for number, name in enumerate(columns):
        out.add_column(name, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in rows:
        out.add_row(*row)
    console.print(out)
