"""A peer's keys: one encrypted file, opened with a password that nobody sees."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from getpass import GetPassWarning, getpass
from pathlib import Path
from typing import TYPE_CHECKING

from circuits.errors import QrunError, UsageError
from contracts.keystore import NodeSecrets, load_keystore
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
