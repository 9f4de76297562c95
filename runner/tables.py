"""Tables on stdout: what all views share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text


def emit(*things: RenderableType) -> None:
    """Print to stdout, in one piece. Piped output gets a fixed width, so that tables are whole in a file.

    Raises:
        OSError: stdout is closed or full; rich would end the process instead.
    """
    console = stdout()
    with console.capture() as captured:
        for thing in things:
            console.print(thing)
    text = captured.get()
    if not sys.stdout.isatty():
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    sys.stdout.write(text)
    sys.stdout.flush()


def stdout() -> Console:
    """The console of stdout, as wide as the terminal, or 110 columns in a file."""
    width = None if sys.stdout.isatty() else max(110, shutil.get_terminal_size((110, 40)).columns)
    return Console(file=sys.stdout, width=width, highlight=False)


def table_of(title: str, columns: Sequence[str], numeric: Iterable[int] = ()) -> Table:
    """An empty table; `numeric` names the columns that are set to the right."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    right = set(numeric)
    for k, column in enumerate(columns):
        # Folded, not cut: addresses, digests and paths are there to be copied.
        table.add_column(column, justify="right" if k in right else "left", no_wrap=k == 0, overflow="fold")
    return table


def short(text: str, keep: int = 8) -> str:
    """The beginning and the end of something long."""
    return text if len(text) <= 2 * keep else f"{text[:keep]}…{text[-6:]}"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table on stdout."""
    table = table_of(title, columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    emit(table)
