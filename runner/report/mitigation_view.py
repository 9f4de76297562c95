"""The comparison of mitigation techniques as tables, in a terminal and as Markdown, and where each stops paying."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from backends.mitigation.compare import Row, Setup
from runner.bar import Bar
from runner.tables import emit, stdout, table_of

COLUMNS = ("technique", "bias", "spread", "stated", "error", "gain", "circuits", "shots", "seconds", "")

LEGEND = (
    "Errors are of expectation values <Z_i>, means over qubits and parameter sets. bias: |mean over repetitions - "
    "ideal|; spread: standard deviation over repetitions; stated: the standard error that the results state (of twirl "
    "without the draw of its circuits; of pec with it, and of cdr with what its line leaves over, so that both have "
    "one with exact values too); error: mean |value - ideal|, with its standard error over the sets; gain: error of "
    "none over this one. circuits: for each unmitigated one, each with so many shots; shots: of all of them; seconds: "
    "a call for all sets, once circuits are made."
)

WIDE_ONLY = ("stated", "seconds")
NARROW = "A wider terminal, a file, --markdown and --json also have stated errors, seconds, and the error's own error."


class RowBar(Bar):
    """Progress on stderr: a bar in a terminal, a line a row elsewhere."""

    def __init__(self, text: str = "reading calibrations") -> None:
        super().__init__(text, speed_seconds=120.0)

    def step(self, done: int, total: int, row: Row | None, text: str) -> None:
        """So many rows are done; the last is `row`."""
        said = text if row is None else f"{_place(row)}, {_at(row.shots)}: {row.stack}"
        self.progress.update(self.task, completed=done, total=total, description=said)
        if not self.console.is_terminal and row is not None:
            error = "not had" if row.error is None else f"error {row.error:.2e}"
            self.console.print(f"{done}/{total} {said}: {error}", soft_wrap=True)

    def notice(self, text: str) -> None:
        """A panel that stays."""
        self.console.print(Panel(Text(text), title="Data", border_style="yellow", expand=False))

    def say(self, done: int, total: int, text: str) -> None:
        """So many are done; `text` says what is next, or came of the last."""
        self.progress.update(self.task, completed=done, total=total, description=text)
        if not self.console.is_terminal:
            self.console.print(f"{done}/{total} {text}", soft_wrap=True)


def _place(row: Row) -> str:
    return f"{row.backend}, {row.qubits} qubits"


def _at(shots: int | None) -> str:
    return "exact" if shots is None else f"{shots:,} shots"


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """(title, rows) by device, qubits and shots, in their order."""
    keys = dict.fromkeys((row.backend, row.qubits, row.shots) for row in rows)
    for key in keys:
        mine = [row for row in rows if (row.backend, row.qubits, row.shots) == key]
        yield f"{_place(mine[0])}, {_at(mine[0].shots)}", mine


def cells(row: Row) -> list[str]:
    """A row of COLUMNS as text."""
    if row.error is None or row.uncertainty is None:
        return [row.stack, *["-"] * (len(COLUMNS) - 2), row.why_not]
    shots = "exact" if row.shots is None or row.circuits is None else f"{row.circuits * row.shots:,.0f}"
    exact = row.shots is None
    return [
        row.stack,
        _figure(row.bias),
        "0" if exact and not row.spread else _figure(row.spread),
        "0" if exact and not row.reported else _figure(row.reported),
        f"{_figure(row.error)} ± {_figure(row.uncertainty)}",
        "-" if row.gain is None else f"{row.gain:.2f}" if row.gain < 10 else f"{row.gain:.0f}",
        f"{row.circuits:.4g}",
        shots,
        f"{row.seconds:.3g}",
        "worse" if row.worse else "",
    ]


def _figure(value: float | None) -> str:
    """Four digits after the point, five of what is below 0.001."""
    return "-" if value is None else f"{value:.4f}" if value >= 0.001 else f"{value:.5f}"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Where each technique stops paying: a line a device, width and technique that is worse than none somewhere."""
    out = []
    for backend, qubits, stack in dict.fromkeys((row.backend, row.qubits, row.stack) for row in rows):
        mine = [r for r in rows if (r.backend, r.qubits, r.stack) == (backend, qubits, stack) and r.error is not None]
        worse = [row for row in mine if row.worse]
        if not worse:
            continue
        where = ["exact values" if row.shots is None else _at(row.shots) for row in worse]
        said = "everywhere" if len(worse) == len(mine) else "at " + " and ".join(where)
        out.append(f"{backend}, {qubits} qubits: {stack} is worse than none {said}.")
    return out


def about(setup: Setup) -> str:
    """How it was compared, in a sentence."""
    readout = "" if setup.readout_error else ", readout errors set aside"
    idle = ", with idle noise" if setup.idle_noise else ""
    return (
        f"{setup.sets} random parameter sets, uniform in [-pi, pi]; with shots {setup.repetitions} repetitions on "
        f"{setup.engine}; {setup.draws} draws of random circuits; seed {setup.seed}{readout}{idle}."
    )


def fits(tables: Sequence[Table], console: Console) -> bool:
    """Whether no cell of them has to be broken."""
    wide = console.options.update(width=10_000)
    return all(console.measure(table, options=wide).maximum <= console.width for table in tables)


def show(rows: Sequence[Row], setup: Setup) -> None:
    """A table for each device, width and number of shots; then where techniques stop paying."""
    console = stdout()
    things = shown(rows, narrow=False)
    if not fits([thing for thing in things if isinstance(thing, Table)], console):
        things = [*shown(rows, narrow=True), Text(NARROW, style="dim")]
    emit(*things, *map(Text, verdicts(rows)), Text(about(setup)), Text(LEGEND, style="dim"))


def shown(rows: Sequence[Row], *, narrow: bool) -> list[RenderableType]:
    """The tables, and under each why rows of it could not be had; `narrow` for 80 columns, without `WIDE_ONLY`."""
    kept = [k for k, name in enumerate(COLUMNS) if not (narrow and name in WIDE_ONLY)]
    things: list[RenderableType] = []
    for title, mine in groups(rows):
        table = table_of(title, [COLUMNS[k] for k in kept], numeric=range(1, len(kept) - 1))
        if narrow:
            table.padding = (0, 1, 0, 0)
        for row in mine:
            style = "red" if row.worse else "dim" if row.error is None else None
            # A reason is a sentence, which a narrow column would take many lines for.
            line = [*cells(row)[:-1], "not had"] if row.why_not else cells(row)
            texts = [line[k].split(" ± ")[0] if narrow else line[k] for k in kept]
            table.add_row(*map(Text, texts), style=style)
        things += [table, *(Text(f"{row.stack}: {row.why_not}", style="dim") for row in mine if row.why_not)]
    return things


def markdown(rows: Sequence[Row], setup: Setup) -> str:
    """The same as Markdown."""
    out: list[str] = []
    for title, mine in groups(rows):
        out += [f"**{title}**", "", *as_markdown(COLUMNS, [cells(row) for row in mine]), ""]
    lines = verdicts(rows)
    out += [*(f"- {line}" for line in lines), *([""] if lines else []), about(setup), "", LEGEND]
    return "\n".join(out)


def as_markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, words_last: bool = True) -> list[str]:
    """Lines of a Markdown table; all but the first column are set to the right, but for the last where it has words."""
    rule = ["---", *["--:"] * (len(columns) - 2), "---" if words_last else "--:"]
    return [f"| {' | '.join(map(str, line))} |" for line in (columns, rule, *rows)]
