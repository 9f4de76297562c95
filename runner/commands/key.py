"""qrun key: a node's keys in an encrypted file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.commands.base import JsonOption, guarded, print_json

if TYPE_CHECKING:
    from runner.peers.keys import KeyFile

PasswordFileOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="File that holds the password, mode 0600, instead of asking for it."),
]
SigningOption = Annotated[
    bool, typer.Option("--signing", help="With an ML-DSA-65 key, for tasks whose models are signed with one.")
]


@guarded
def new(
    file: Annotated[Path, typer.Argument(help="Keystore to write; never over another file.")],
    *,
    signing: SigningOption = False,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a node's keys: an Ethereum account, a key for masked sums, and with --signing a signing key."""
    from runner.peers.keys import make_keystore

    _show(make_keystore(file, password_file, signing=signing), made=True, as_json=as_json)


@guarded
def import_(
    source: Annotated[Path, typer.Argument(help="Ethereum keystore (version 3, scrypt), or a node's; it stays.")],
    file: Annotated[Path, typer.Argument(help="Keystore to write, with the same password.")],
    *,
    signing: SigningOption = False,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a node's keystore of an account that is there, a funded one for example."""
    from runner.peers.keys import import_keystore

    _show(import_keystore(source, file, password_file, signing=signing), made=True, as_json=as_json)


@guarded
def show(
    file: Annotated[Path, typer.Argument(help="The keystore.")],
    *,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a keystore's address; with the password also what it registers. Nothing secret is ever shown."""
    from runner.peers.keys import look_at_keystore

    _show(look_at_keystore(file, password_file), made=False, as_json=as_json)


def _show(found: KeyFile, *, made: bool, as_json: bool) -> None:
    if as_json:
        print_json(found.to_dict())
        return
    from runner.tables import show_table

    sealed = "not shown without the password"
    opened = found.exchange_key is not None
    signing = (found.signing_key or sealed) if found.signing else "none: it signs with its account"
    rows = [["address", found.address]]
    if found.of_node:
        rows += [["exchange key (public)", found.exchange_key or sealed], ["signing key (digest)", signing]]
    else:
        rows += [["keys of a node", "none: an account alone (`qrun key import` makes a node's of it)"]]
    show_table(str(found.file), ["what", "value"], rows)
    if made:
        typer.echo("Keep a copy of the file, and the password: without either the account's money is lost.", err=True)
    elif not opened:
        typer.echo("The address is what the file says of itself: nothing was opened, so nothing is checked.", err=True)


def add(app: typer.Typer) -> None:
    """Put the group `key` onto the command line."""
    group = typer.Typer(help="A node's keys in an encrypted file: new, import, show.", no_args_is_help=True)
    group.command("new")(new)
    group.command("import")(import_)
    group.command("show")(show)
    app.add_typer(group, name="key")
