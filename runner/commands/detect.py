"""`qrun detect`: a trained model on flows from a file or stdin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from runner.commands.base import complete_run, guarded


@guarded
def detect(
    *,
    model: Annotated[str, typer.Option(help="A finished run: its name, or its folder.", autocompletion=complete_run)],
    input_: Annotated[
        str, typer.Option("--input", "-i", help="File of flows in NSL-KDD's columns, or - for stdin.")
    ] = "-",
    threshold: Annotated[str, typer.Option(help="label-free, or validated.")] = "label-free",
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a first line of names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Score flows as they come: line, score, probability of an attack, verdict. No circuit is run for it."""
    import sys

    from circuits.errors import QrunError, UsageError

    if as_csv and as_json:
        raise UsageError("--csv and --json name two forms.", "Leave one out.")
    with _opened(input_) as read:
        from runner.detect import Tally, load, run, threshold_of

        loaded = load(model)
        edge = threshold_of(loaded, threshold)

        def write(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()

        tally = Tally()
        try:
            form: Literal["text", "csv", "json"] = "json" if as_json else "csv" if as_csv else "text"
            for tally in run(loaded, edge, read, form=form, write=write, tell=_tell):  # noqa: B007 - the last counts
                pass
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted. {tally.sentence()}") from None
    _tell(tally.sentence() + "\n")
    if tally.malformed and not tally.flows:
        raise QrunError("no line of the input is a flow.", "It has to have NSL-KDD's 41 columns, separated by commas.")


def _tell(text: str) -> None:
    typer.echo(text, err=True, nl=False)


@contextmanager
def _opened(name: str) -> Iterator[Callable[[], bytes]]:
    """What gives the bytes of a file, or of stdin, as they come.

    Raises:
        UsageError: there is no such file.
        QrunError: it cannot be read on.
    """
    import os
    import sys

    from circuits.errors import QrunError, UsageError

    chunk = 1 << 18
    if name == "-":
        if sys.stdin is None:
            raise UsageError("--input -: there is no stdin.", "Name a file.")
        try:
            descriptor = sys.stdin.fileno()
        except (OSError, ValueError):  # somebody has put something else in its place
            yield partial(sys.stdin.buffer.read, chunk)
            return
    else:
        try:
            descriptor = os.open(Path(name).expanduser(), os.O_RDONLY)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"--input {name!r}: {reason}.", "Name a file that can be read, or - for stdin.") from None

    def read() -> bytes:
        try:
            return os.read(descriptor, chunk)
        except OSError as error:
            raise QrunError(f"--input {name!r}: {error.strerror}.", "Name a file, not a folder.") from None

    try:
        yield read
    finally:
        if name != "-":
            os.close(descriptor)


def add(app: typer.Typer) -> None:
    """Put `detect` onto the command line."""
    app.command()(detect)
