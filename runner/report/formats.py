"""A report as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from runner.report.document import NUMERIC, Column, Report, Table, shown


def as_json(report: Report) -> str:
    """Every number of it."""
    return json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# -- Markdown ---------------------------------------------------------------------------------------------------------


def as_markdown(report: Report, *, plots: str | None = "plots") -> str:
    """For a pull request.

    Args:
        report: What to show.
        plots: Folder of the PNG files; None to leave pictures out.
    """
    out = [f"# {_md(report.title)}", ""]
    out += [f"- {_md(sentence)}" for sentence in report.sentences]
    out += ["", *(f"> {_md(notice)}" for notice in report.notices), ""] if report.notices else [""]
    for section in report.sections:
        out += [f"## {_md(section.title)}", ""]
        for text in section.text:
            out += [_md(text), ""]
        for plot in section.plots if plots is not None else ():
            out += [f"![{_md(plot.alt)}]({plots}/{plot.id}.png)", ""]
            out += [_md(plot.note), ""] if plot.note else []
        for table in section.tables:
            out += [f"**{_md(table.title)}**", "", *markdown_table(table), ""]
            out += [_md(table.note), ""] if table.note else []
    return "\n".join(out)


def markdown_table(table: Table) -> list[str]:
    """Lines of a table; columns that are empty throughout are left out."""
    columns = filled_columns(table)
    rule = ["--:" if c.kind in NUMERIC else "---" for c in columns]
    lines = [[_md(c.head) for c in columns], rule]
    lines += [[_md_cell(row.get(c.key), c) for c in columns] for row in table.rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def filled_columns(table: Table) -> list[Column]:
    """Those that some row has a value of."""
    return [c for c in table.columns if any(row.get(c.key) is not None for row in table.rows)]


def _md(text: str) -> str:
    """Nothing in it is markup; what comes from a hostile file is none either."""
    return re.sub(r"([\\*_{}\[\]<>#|])", r"\\\1", _one_line(text)).replace("\\_", "_")


def _md_cell(value: Any, column: Column) -> str:
    text = shown(value, column)
    return f"`{_one_line(text).replace('`', '').replace('|', '')}`" if column.kind == "mono" else _md(text)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# -- LaTeX ------------------------------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "−": r"$-$",
    "–": r"--",
    "µ": r"$\mu$",
    "²": r"$^2$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "“": "``",
    "”": "''",
    "±": r"$\pm$",
}


def tex(text: str) -> str:
    """A text in which nothing is a command."""
    return "".join(_TEX.get(c, c) for c in _one_line(text))


def as_latex(report: Report) -> str:
    r"""All tables, for \input; they need booktabs, and graphicx for the widest of them."""
    head = [
        f"% {_one_line(report.title)}",
        r"% \usepackage{booktabs,graphicx}",
        *(f"% {_one_line(sentence)}" for sentence in report.sentences),
    ]
    return "\n".join([*head, *(latex_table(table) for table in report.tables())]) + "\n"


def latex_table(table: Table) -> str:
    """One table, with its caption and label."""
    columns = filled_columns(table)
    shape = "".join("r" if c.kind in NUMERIC else "l" for c in columns)
    lines = [
        "",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(table.title)}.{' ' + tex(table.note) if table.note else ''}}}",
        rf"\label{{tab:{table.id}}}",
    ]
    wide = len(columns) > 6
    lines += [r"\resizebox{\linewidth}{!}{%"] if wide else []
    lines += [rf"\begin{{tabular}}{{{shape}}}", r"\toprule"]
    lines.append(" & ".join(tex(c.head) for c in columns) + r" \\")
    lines.append(r"\midrule")
    for row in table.rows:
        lines.append(" & ".join(_tex_cell(row.get(c.key), c) for c in columns) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else ""), r"\end{table}"]
    return "\n".join(lines)


def _tex_cell(value: Any, column: Column) -> str:
    text = tex(shown(value, column))
    return rf"\texttt{{{text}}}" if column.kind == "mono" and value is not None else text


# -- CSV --------------------------------------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """Every number of a table, unrounded; an interval takes a column each for mean, ends and number."""
    heads: list[str] = []
    for column in table.columns:
        if column.kind in ("interval", "points"):
            heads += [f"{column.key}_{part}" for part in ("mean", "low", "high", "n")]
        else:
            heads.append(column.key)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    for row in table.rows:
        cells: list[Any] = []
        for column in table.columns:
            value = row.get(column.key)
            if column.kind in ("interval", "points"):
                found = value if isinstance(value, Mapping) else {}
                cells += [found.get(part) for part in ("mean", "low", "high", "n")]
            else:
                cells.append(_harmless(value))
        writer.writerow(["" if cell is None else cell for cell in cells])
    return buffer.getvalue()


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
