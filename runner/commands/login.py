"""qrun login: keeps the token for IBM Quantum where qiskit-ibm-runtime looks for it, and nowhere else."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from runner.commands.base import JsonOption, guarded, print_json


@guarded
def login(
    *,
    channel: Annotated[
        str, typer.Option(help="ibm_quantum_platform, or ibm_cloud (the older name of the same).")
    ] = "ibm_quantum_platform",
    instance: Annotated[
        str | None, typer.Option(help="Name or CRN of the instance; the service chooses if not told.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name that the account is saved under; the channel's own if not told.")
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not ask the service whether it takes it.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Delete the saved account.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Save the token for IBM Quantum: asked for without echo, or read from stdin (`qrun login < FILE`).

    The token is checked with the service, saved by qiskit-ibm-runtime's own save_account, and never shown.
    """
    from runner.account import forget_account, save_account

    told = forget_account(channel, name) if forget else save_account(_token(), channel, instance, name, not no_check)
    if as_json:
        print_json(told.to_dict())
        return
    for line in told.lines():
        typer.echo(line)


def _token() -> str:
    """The token, from the terminal without echo or from stdin."""
    if sys.stdin is not None and sys.stdin.isatty():
        return str(typer.prompt("Token (not shown)", hide_input=True, err=True))
    return "" if sys.stdin is None else sys.stdin.readline(1 << 16)


def add(app: typer.Typer) -> None:
    """Put `login` onto the command line."""
    app.command("login")(login)
