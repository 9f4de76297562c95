"""A report as plain values: sections of text, tables and plots. Every format is made from it, and from nothing else.

What a reader sees of a number is `shown`; what is kept of it (JSON, CSV, the HTML's data) is the number itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

FORMAT = "qrun-report/1"

Kind = Literal["text", "whole", "fixed", "figures", "interval", "points", "p", "mono", "link"]
"""How a cell is shown: text; a whole number; so many digits after the point; so many significant ones; an interval
{"mean", "low", "high", "n"}, and one in hundredths (points); a p value; text that is copied rather than read; a run's
name, which leads to its page where there is one."""

NUMERIC = ("whole", "fixed", "figures", "interval", "points", "p")
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Of its values in a row.
        title: Its head.
        kind: See Kind.
        digits: Of what has digits.
        unit: In brackets behind the title.
    """

    key: str
    title: str
    kind: Kind = "text"
    digits: int = 4
    unit: str = ""

    @property
    def head(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Table:
    """Rows by key; what a row lacks, or has None of, is shown as a dash."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A picture: what is drawn, as plain values (`runner.report.plots` has the kinds).

    Attributes:
        alt: What it shows, in words, for who does not see it.
        data: Axis labels, and panels with their series.
    """

    id: str
    title: str
    alt: str
    kind: Literal["intervals", "lines", "steps", "bars"]
    data: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        title: What is reported on.
        sentences: What was asked, and what the answers are.
        notices: What a reader has to know: stand-in data, runs that were left out, what is missing.
        sections: In the order of the page.
        about: How it was made: versions, data, digests.
    """

    title: str
    sentences: tuple[str, ...]
    notices: tuple[str, ...]
    sections: tuple[Section, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def tables(self) -> Iterator[Table]:
        """All tables."""
        for section in self.sections:
            yield from section.tables

    def plots(self) -> Iterator[Plot]:
        """All plots."""
        for section in self.sections:
            yield from section.plots

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"format": FORMAT, **asdict(self)}


def shown(value: Any, column: Column) -> str:
    """A cell as a reader sees it."""
    return NOTHING if value is None else _SHOWN[column.kind](value, column.digits)


def interval(value: Mapping[str, Any], digits: int = 4, *, scale: float = 1.0, sign: bool = False) -> str:
    """0.9834 [0.9801, 0.9867]; of one value the value alone."""
    plus = "+" if sign else ""

    def number(one: float) -> str:
        return _signed(f"{one * scale:{plus}.{digits}f}")

    if value["low"] is None:
        return number(value["mean"])
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


def p_value(value: float) -> str:
    """0.012, or <0.001."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def figures(value: float, digits: int = 3) -> str:
    """So many significant digits; as a power of ten where it is small or large."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if -4 <= size < 6:
        text = f"{value:.{max(0, digits - 1 - size)}f}"
        return _signed(text)
    return _signed(f"{value:.{digits - 1}e}")


def _signed(text: str) -> str:
    """With a true minus sign."""
    return text.replace("-", "−") if "e" not in text else text.replace("-", "−", 1) if text.startswith("-") else text


def order_of(value: Any) -> float | str | None:
    """What a table is sorted by; None for nothing."""
    if isinstance(value, Mapping):
        return float(value["mean"])
    if isinstance(value, bool) or value is None:
        return None
    return float(value) if isinstance(value, int | float) else str(value)


_SHOWN: Mapping[Kind, Callable[[Any, int], str]] = {
    "text": lambda value, digits: str(value),
    "mono": lambda value, digits: str(value),
    "link": lambda value, digits: str(value),
    "whole": lambda value, digits: f"{value:,}",
    "fixed": lambda value, digits: _signed(f"{value:.{digits}f}"),
    "figures": figures,
    "interval": interval,
    "points": lambda value, digits: interval(value, digits, scale=100.0, sign=True),
    "p": lambda value, digits: p_value(value),
}
