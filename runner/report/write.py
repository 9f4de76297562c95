"""A report in a folder: every format, made from one model of it.

report.html   one file, for a browser        report.md    for a pull request, with plots/*.png
report.json   every number                   tables.tex   for a paper
tables/*.csv  every number, a table each     plots/*.png, plots/*.svg
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from circuits.errors import UsageError
from runner.report.document import FORMAT, Report
from runner.report.formats import as_csv, as_json, as_latex, as_markdown
from runner.report.html import as_html
from runner.report.plots import draw
from runner.store import on_disk, write_durably

MARK = ".qrun-report"
"""In a folder that this module has made: it may replace what is in it."""


def write(report: Report, folder: Path) -> list[Path]:
    """Write all formats; the folder is made, or is an earlier report's.

    Returns:
        The files, the HTML page first.

    Raises:
        UsageError: There is something else in the folder.
        QrunError: Disk full, no permission.
    """
    check_folder(folder)
    with on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / MARK, FORMAT.encode())
        for name in ("plots", "tables"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
        svgs, made = {}, []
        for plot in report.plots():
            png, svg = draw(plot)
            svgs[plot.id] = svg
            for name, content in ((f"{plot.id}.png", png), (f"{plot.id}.svg", svg.encode())):
                (folder / "plots" / name).write_bytes(content)
                made.append(folder / "plots" / name)
        for table in report.tables():
            file = folder / "tables" / f"{table.id}.csv"
            file.write_text(as_csv(table), encoding="utf-8")
            made.append(file)
        for name, text in (
            ("report.json", as_json(report)),
            ("report.md", as_markdown(report)),
            ("tables.tex", as_latex(report)),
            ("report.html", as_html(report, svgs)),
        ):
            write_durably(folder / name, text.encode())
            made.insert(0, folder / name)
    return made


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something else than a report; before anything is computed.

    Raises:
        UsageError: It does.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: exists and is no folder.", "Name a new or an empty folder.")
    if folder.is_dir() and os.listdir(folder) and not (folder / MARK).is_file():
        raise UsageError(f"--out {folder}: is not empty, and no report.", "Name a new or an empty folder.")
