"""A peer's keys: one encrypted file, opened with a password that nobody sees."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from getpass import GetPassWarning, getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.errors import QrunError, UsageError
from contracts.errors import LedgerError
from contracts.keystore import (
    NodeSecrets,
    check_new,
    create_keystore,
    load_account,
    load_keystore,
    new_secrets,
    read_told,
)
from contracts.private_file import read_password
from runner.keys import NodeKeys

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


def open_keys(path: Path, password_file: Path | None = None) -> tuple[LocalAccount, NodeKeys]:
    """A peer's account, which signs its transactions, and its keys, from its keystore.

    Args:
        path: The keystore.
        password_file: Holds the password, mode 0600; None to ask at the terminal.

    Raises:
        UsageError: there is neither a file of the password nor anybody to ask for it.
        LedgerError: the keystore cannot be read, is open to others or damaged; the password is wrong.
    """
    from eth_account import Account

    kept = open_secrets(path, password_file)
    account: LocalAccount = Account.from_key(kept.chain)
    return account, node_keys(kept)


def address_in(path: Path) -> str:
    """The address that a node's keystore says is its account's; nobody has checked it.

    Raises:
        LedgerError: it is none of a node.
    """
    told = read_told(path)
    if not told.of_node:
        raise LedgerError(
            f"{path} holds an Ethereum account alone, and none of a node's other keys.",
            "`qrun key import` makes a node's keystore of it.",
        )
    return told.address


def open_secrets(path: Path, password_file: Path | None = None) -> NodeSecrets:
    """What a keystore holds; see `open_keys`."""
    return load_keystore(path, ask_password(password_file, f"Password of {path}: "))


def node_keys(kept: NodeSecrets) -> NodeKeys:
    """A keystore's content as runs take keys."""
    return NodeKeys(kept.chain, kept.exchange, kept.signing)


def public_exchange_key(keys: NodeKeys | NodeSecrets) -> bytes:
    """What a node registers of its key of secure aggregation: X25519, 32 bytes."""
    from experiments.features.secure_sum import ExchangeKey

    return ExchangeKey.from_bytes(keys.exchange).public


def signing_digest(keys: NodeKeys | NodeSecrets) -> bytes | None:
    """What a node registers of its ML-DSA-65 key: the SHA-256 of its public half; None where it has none."""
    from contracts.signatures import mldsa_key, signing_key

    return None if keys.signing is None else signing_key(mldsa_key(keys.signing))


def ask_password(file: Path | None, prompt: str) -> str:
    """A password from a file, or else from whoever sits at the terminal; never from an argument or the environment.

    Args:
        file: Its owner alone may read it; a newline at its end is not part of the password. None to ask.
        prompt: What is asked, on the terminal.

    Raises:
        UsageError: nobody can be asked.
        LedgerError: the file is open to others, or holds no password; nothing was typed.
    """
    return read_password(file, None if file is not None else lambda: _typed(prompt))


def new_password(file: Path | None, what: str) -> str:
    """A password for a new file: from a file, or asked twice.

    Raises:
        QrunError: what was typed the second time is not the same; and as `ask_password`.
    """
    first = ask_password(file, f"Password for {what}: ")
    if file is None and ask_password(None, "The same again: ") != first:
        raise QrunError("the two passwords are not the same.", "Nothing was written; try again.")
    return first


@dataclass(frozen=True)
class KeyFile:
    """What may be shown of a keystore.

    Attributes:
        file: The file.
        address: Of its account.
        of_node: Whether it holds a node's other keys beside the account ...
        signing: ... and among them one of ML-DSA-65.
        exchange_key: What is registered of the key of secure aggregation, hex; None unless it was opened.
        signing_key: What is registered of the ML-DSA-65 key, hex; None where there is none, or it was not opened.
    """

    file: Path
    address: str
    of_node: bool
    signing: bool
    exchange_key: str | None = None
    signing_key: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return {**asdict(self), "file": str(self.file), "opened": self.exchange_key is not None}


def make_keystore(path: Path, password_file: Path | None, *, signing: bool) -> KeyFile:
    """Make a node's keys, in a new file.

    Raises:
        UsageError: there is nobody to ask for the password.
        LedgerError: there is a file already, or it cannot be written.
    """
    check_new(path)
    password = new_password(password_file, str(path))
    kept = new_secrets(signing=signing)
    create_keystore(path, kept, password)
    return shown_keys(path, kept)


def import_keystore(source: Path, path: Path, password_file: Path | None, *, signing: bool) -> KeyFile:
    """Make a node's keystore of another one's account: of an Ethereum tool's, or of a node's whose keys it keeps too.

    The password stays the same.

    Args:
        source: The keystore that is there; it stays as it is.
        path: The new one.
        password_file: Holds the password; None to ask.
        signing: Whether the new one gets an ML-DSA-65 key, where the old one has none.

    Raises:
        UsageError: there is nobody to ask for the password.
        LedgerError: the old one does not open, or the new one cannot be written.
    """
    check_new(path)
    fresh, told = new_secrets(signing=signing), read_told(source)
    password = ask_password(password_file, f"Password of {source}: ")
    if told.of_node:
        old = load_keystore(source, password)
        kept = NodeSecrets(old.chain, old.exchange, old.signing or fresh.signing)
    else:
        kept = NodeSecrets(load_account(source, password), fresh.exchange, fresh.signing)
    create_keystore(path, kept, password)
    return shown_keys(path, kept)


def look_at_keystore(path: Path, password_file: Path | None) -> KeyFile:
    """What may be shown of a keystore: what it tells by itself, and the public halves of its keys if it is opened.

    Whoever sits at a terminal is asked for the password, and need not know it.

    Raises:
        LedgerError: it cannot be read, is open to others or damaged; the password is wrong.
    """
    told = read_told(path)
    unopened = KeyFile(path, told.address, told.of_node, told.signing)
    if not told.of_node or (password_file is None and not somebody_there()):
        return unopened
    if password_file is None:
        password = ""
        with suppress(EOFError):
            password = _typed(f"Password of {path} (empty: show the address alone): ")
        if not password:
            return unopened
    else:
        password = ask_password(password_file, "")
    return shown_keys(path, load_keystore(path, password))


def shown_keys(path: Path, kept: NodeSecrets) -> KeyFile:
    """Of an open keystore, what may be shown."""
    digest = signing_digest(kept)
    hexed = None if digest is None else digest.hex()
    return KeyFile(path, kept.address, True, digest is not None, public_exchange_key(kept).hex(), hexed)


def somebody_there() -> bool:
    """Whether somebody can be asked: input comes from a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def _typed(prompt: str, ask: Callable[[str], str] = getpass) -> str:
    """What somebody types, unseen.

    Raises:
        UsageError: there is no terminal, or one that would show it.
    """
    advice = "Put it into a file, `chmod 600` it, and name it with --password-file."
    if not somebody_there():
        raise UsageError("there is no terminal to ask for the password.", advice)
    with warnings.catch_warnings():
        warnings.simplefilter("error", GetPassWarning)
        try:
            return ask(prompt)
        except GetPassWarning:
            raise UsageError("this terminal would show the password.", advice) from None
