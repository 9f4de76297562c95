"""The command line: options to values, values to calls, results to stdout. No logic, and no heavy import at the top."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from runner.commands import (
    attack,
    backends,
    benchmark,
    chain,
    compare,
    dashboard,
    detect,
    estimate,
    experiment,
    jobs,
    key,
    login,
    mitigation,
    node,
    runs,
    store,
    task,
    verify,
)
from runner.commands.base import JsonOption, guarded, print_json

app = typer.Typer(
    name="qrun",
    help="A hardware-targeting experiment runner for federated quantum machine learning.",
    epilog="Start with: qrun experiment nsl-kdd --backend fake_kyiv",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from runner.versions import package_version

        typer.echo(f"qrun {package_version('qrun')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@guarded
def _doctor(
    chain: Annotated[str | None, typer.Option(help="Also look whether this Ethereum node answers.")] = None,
    ipfs: Annotated[str | None, typer.Option(help="Also look whether this IPFS daemon answers.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Also ask IBM's service: does it answer, what is left.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What is here and what is missing: versions, data, chain, IPFS, token; and how to mend it."""
    from runner.doctor import examine
    from runner.view import show_checks

    checks = examine(chain=chain, ipfs=ipfs, data=data, live=live)
    if as_json:
        print_json([c.to_dict() for c in checks])
    else:
        show_checks(checks)
    if any(c.state == "broken" for c in checks):
        raise typer.Exit(1)


# In the order of `qrun --help`: what a user comes for stands first.
experiment.add(app)
app.command("doctor")(_doctor)
for _group in (
    detect, benchmark, compare, dashboard, estimate, login, backends, mitigation, runs, jobs, key, task, node, attack,
    verify, chain, store,
):  # fmt: skip
    _group.add(app)


def _terminate(*_: object) -> NoReturn:
    """A polite kill ends a run as Ctrl-C does: with the line that says how to go on."""
    raise KeyboardInterrupt


def _at_once(*_: object) -> NoReturn:
    """A second signal, while the first one's end is under way, or one that comes after the end: no traceback."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(130)


def main() -> None:
    """Entry point of the command `qrun`."""
    if sys.stdout is None:  # Closed by whoever started us.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no µ or … gets a question mark, not an error.
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(prog_name="qrun")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _at_once)


if __name__ == "__main__":
    main()
