"""The keys of one node in an encrypted file.

The file is an Ethereum keystore (Web3 Secret Storage, version 3: scrypt, AES-128-CTR, a MAC) of the node's account, so
that any Ethereum tool reads it, and in its field `qrun` holds what else the node must keep: the key of secure
aggregation and, where it signs with ML-DSA-65, that key's seed. They are encrypted with AES-256-GCM under a key that
scrypt makes of the same password and another salt; the account's address and all parameters are authenticated with
them, so that no part can be exchanged for another file's.

scrypt's cost is N = 2^17, r = 8, p = 1 (128 MiB), what OWASP's Password Storage Cheat Sheet asks for. A file may come
from outside: nothing of it is computed with before it has the one form and a cost within bounds.
"""

from __future__ import annotations

import json
import secrets as random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import LedgerError
from contracts.private_file import read_private, write_private

WORK_FACTOR = 1 << 17
"""scrypt's N."""
MAX_MEMORY = 256 << 20
"""Bytes that scrypt may take (128 N r) for a file that is opened: what the standard cost of geth takes."""
MAX_LANES = 8
"""scrypt's p in a file that is opened, each as long as all of it takes with one; geth's light cost has 6."""
MAX_BYTES = 8192
"""Of a keystore file."""
_SECTION = "qrun"
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1; a key is below it."""
_COPY = "Take the copy that you kept of it."
_OPENS_NOT = "is the password wrong, or the file damaged?"


@dataclass(frozen=True, repr=False)
class NodeSecrets:
    """A node's secrets, 32 bytes each. Never shown.

    Attributes:
        chain: Key of its account (secp256k1).
        exchange: Key of secure aggregation (X25519).
        signing: Seed of its ML-DSA-65 key, None where it signs with its account.
    """

    chain: bytes
    exchange: bytes
    signing: bytes | None = None

    def __post_init__(self) -> None:
        parts = [self.chain, self.exchange, *([] if self.signing is None else [self.signing])]
        if any(not isinstance(part, bytes) or len(part) != 32 for part in parts):
            raise LedgerError("a node's secrets are 32 bytes each.")
        if not 0 < int.from_bytes(self.chain, "big") < _ORDER:
            raise LedgerError("a node's account key is no key of secp256k1.")

    def __repr__(self) -> str:
        return "NodeSecrets(...)"

    @property
    def address(self) -> str:
        """The account's address, EIP-55."""
        from eth_account import Account

        return str(Account.from_key(self.chain).address)


@dataclass(frozen=True)
class Told:
    """What a keystore says of itself without its password. Nobody has checked it.

    Attributes:
        address: Of its account, EIP-55.
        of_node: Whether it holds a node's other keys, too ...
        signing: ... and among them one of ML-DSA-65.
    """

    address: str
    of_node: bool
    signing: bool


def new_secrets(*, signing: bool = False) -> NodeSecrets:
    """Fresh secrets from the operating system; with the seed of an ML-DSA-65 key where `signing`."""
    chain = (1 + random.randbelow(_ORDER - 1)).to_bytes(32, "big")
    return NodeSecrets(chain, random.token_bytes(32), random.token_bytes(32) if signing else None)


def create_keystore(path: Path, kept: NodeSecrets, password: str, *, work_factor: int = WORK_FACTOR) -> None:
    """Write a node's secrets to a new file, mode 0600, whole or not at all.

    Args:
        path: The file; none may be there.
        kept: What it holds.
        password: Of one character or more.
        work_factor: scrypt's N, a power of two; less than the default in tests only.

    Raises:
        LedgerError: there is a file already, it cannot be written, or the password is empty.
    """
    _check_password(password)
    check_new(path)
    from eth_account import Account

    body: dict[str, Any] = dict(Account.encrypt(kept.chain, password, kdf="scrypt", iterations=work_factor))
    head = {
        "version": 1,
        "cipher": "aes-256-gcm",
        "cipherparams": {"nonce": random.token_hex(12)},
        "kdf": "scrypt",
        "kdfparams": {"dklen": 32, "n": work_factor, "p": 1, "r": 8, "salt": random.token_hex(32)},
    }
    sealed = _cipher(head, password).encrypt(
        bytes.fromhex(head["cipherparams"]["nonce"]),  # type: ignore[index]
        kept.exchange + (kept.signing or b""),
        _bound(head, kept.address),
    )
    body[_SECTION] = {**head, "ciphertext": sealed.hex()}
    write_private(path, json.dumps(body, indent=1).encode() + b"\n")


def check_new(path: Path) -> None:
    """See that a keystore may be written there.

    Raises:
        LedgerError: there is a file already.
    """
    if path.exists() or path.is_symlink():
        raise LedgerError(f"{path} exists.", "A keystore is never written over: choose another name.")


def read_told(path: Path) -> Told:
    """What a keystore, a node's or any Ethereum tool's, says of itself without its password.

    Raises:
        LedgerError: there is none; it is a link, too large, open to others, or damaged.
    """
    from eth_utils.address import to_checksum_address

    body = _parse(path, read_private(path, max_bytes=MAX_BYTES, what="a keystore"), whole=False)
    section = body.get(_SECTION)
    signing = section is not None and len(bytes.fromhex(section["ciphertext"])) > 32 + 16
    return Told(str(to_checksum_address("0x" + body["address"].lower())), section is not None, signing)


def load_account(path: Path, password: str) -> bytes:
    """The key of the account in an Ethereum keystore, of whatever tool; a node's other keys are not needed.

    Raises:
        LedgerError: as `load_keystore`.
    """
    _check_password(password)
    body = _parse(path, read_private(path, max_bytes=MAX_BYTES, what="a keystore"), whole=False)
    return _load_account(path, body, password)


def load_keystore(path: Path, password: str) -> NodeSecrets:
    """A node's secrets from its file.

    Raises:
        LedgerError: there is none; it is a link, too large, or open to others; it is damaged, or dear to open beyond
            bounds; the password is wrong. Of the password and of what the file keeps nothing is shown.
    """
    _check_password(password)
    body = _parse(path, read_private(path, max_bytes=MAX_BYTES, what="a keystore"))
    chain = _load_account(path, body, password)
    opened = _open_section(body[_SECTION], password, _address_of(chain))
    if opened is None or len(opened) not in (32, 64):
        raise LedgerError(f"the keystore {path} is damaged: what it keeps beside the account does not open.")
    return NodeSecrets(chain, opened[:32], opened[32:] or None)


def _load_account(path: Path, body: dict[str, Any], password: str) -> bytes:
    chain = _open_account(path, body, password)
    if body["address"].lower() != _address_of(chain)[2:].lower():
        raise LedgerError(f"the keystore {path} is damaged: it is not the account that it names.")
    return chain


def _check_password(password: str) -> None:
    if not password:
        raise LedgerError("a keystore needs a password.", "Choose one of several words.")
    if any("\ud800" <= character <= "\udfff" for character in password):
        raise LedgerError("the password is no text in UTF-8.")


def _open_account(path: Path, body: dict[str, Any], password: str) -> bytes:
    from eth_account import Account

    opened = None
    with suppress(ValueError):  # said below: an exception in another's context shows what it was about
        opened = bytes(Account.decrypt({key: body[key] for key in ("crypto", "version")}, password))
    if opened is None:
        raise LedgerError(f"the keystore {path} does not open: {_OPENS_NOT}")
    if len(opened) != 32 or not 0 < int.from_bytes(opened, "big") < _ORDER:
        raise LedgerError(f"the keystore {path} is damaged: what it holds is no account's key.")
    return opened


def _open_section(section: dict[str, Any], password: str, address: str) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    head = {key: value for key, value in section.items() if key != "ciphertext"}
    nonce, sealed = bytes.fromhex(section["cipherparams"]["nonce"]), bytes.fromhex(section["ciphertext"])
    try:
        return _cipher(section, password).decrypt(nonce, sealed, _bound(head, address))
    except InvalidTag:
        return None


def _cipher(section: Mapping[str, Any], password: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    cost = section["kdfparams"]
    kdf = Scrypt(salt=bytes.fromhex(cost["salt"]), length=32, n=cost["n"], r=cost["r"], p=cost["p"])
    try:
        return AESGCM(kdf.derive(password.encode()))
    except MemoryError:
        need = 128 * cost["n"] * cost["r"] >> 20
        raise LedgerError(f"not enough memory to open a keystore: {need} MiB.", "Make room, and try again.") from None


def _bound(head: Mapping[str, Any], address: str) -> bytes:
    """What is authenticated with the secrets: whose they are, and how they were encrypted."""
    return json.dumps({"address": address, **head}, sort_keys=True, separators=(",", ":")).encode()


def _address_of(key: bytes) -> str:
    from eth_account import Account

    return str(Account.from_key(key).address)


# -- form -------------------------------------------------------------------------------------------------------------


class _NotSo(Exception):
    """The file has not the form of a keystore; the text says where. No part of the file is in it."""

    def __init__(self, why: str, hint: str = _COPY) -> None:
        super().__init__(why)
        self.hint = hint


def _parse(path: Path, data: bytes, *, whole: bool = True) -> dict[str, Any]:
    """The file's JSON, every field that is computed with of its type, length and bound; `whole`: a node's part too."""
    why = hint = ""
    try:
        body = json.loads(data, object_pairs_hook=_once)
        _check_account(body)
        if whole or _SECTION in body:
            _check_section(body)
        return dict(body)
    except _NotSo as problem:
        why, hint = str(problem), problem.hint
    except (ValueError, RecursionError):
        why, hint = "it is no JSON", _COPY
    what = "of a node" if whole else "of an account"
    raise LedgerError(f"{path} is no keystore {what}, or damaged: {why}.", hint)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _NotSo("a field is there twice")
    return fields


def _check_account(body: Any) -> None:
    _fields(body, "it", {"address", "crypto", "version"}, more=True)
    if type(body["version"]) is not int or body["version"] != 3:
        raise _NotSo("its version is not 3")
    _hex(body["address"], "address", 20, 20)
    crypto = body["crypto"]
    _fields(crypto, "crypto", {"cipher", "cipherparams", "ciphertext", "kdf", "kdfparams", "mac"})
    _scrypt(crypto, "crypto", "aes-128-ctr")
    _fields(crypto["cipherparams"], "crypto.cipherparams", {"iv"})
    _hex(crypto["cipherparams"]["iv"], "crypto.cipherparams.iv", 16, 16)
    _hex(crypto["ciphertext"], "crypto.ciphertext", 32, 32)
    _hex(crypto["mac"], "crypto.mac", 32, 32)


def _check_section(body: dict[str, Any]) -> None:
    if _SECTION not in body:
        raise _NotSo(
            "it holds an Ethereum account alone, and none of a node's other keys",
            "`qrun key import` makes a node's keystore of it.",
        )
    section = body[_SECTION]
    _fields(section, _SECTION, {"version", "cipher", "cipherparams", "ciphertext", "kdf", "kdfparams"})
    if type(section["version"]) is not int or section["version"] != 1:
        raise _NotSo("its node's part is not of version 1")
    _scrypt(section, _SECTION, "aes-256-gcm")
    _fields(section["cipherparams"], f"{_SECTION}.cipherparams", {"nonce"})
    _hex(section["cipherparams"]["nonce"], f"{_SECTION}.cipherparams.nonce", 12, 12)
    _hex(section["ciphertext"], f"{_SECTION}.ciphertext", 32 + 16, 64 + 16)


def _scrypt(part: dict[str, Any], where: str, cipher: str) -> None:
    if part["cipher"] != cipher or part["kdf"] != "scrypt":
        raise _NotSo(f"{where} is not encrypted with {cipher} and scrypt")
    cost = part["kdfparams"]
    _fields(cost, f"{where}.kdfparams", {"dklen", "n", "p", "r", "salt"})
    _hex(cost["salt"], f"{where}.kdfparams.salt", 16, 64)
    n, r, p, length = (cost[name] for name in ("n", "r", "p", "dklen"))
    if any(type(number) is not int or number < 1 for number in (n, r, p)) or type(length) is not int or length != 32:
        raise _NotSo(f"{where}.kdfparams are none of scrypt with a key of 32 bytes")
    if 128 * n * r > MAX_MEMORY or p > MAX_LANES:
        raise _NotSo(f"{where}.kdfparams ask for far more time and memory than a keystore needs")
    if n < 2 or n & (n - 1) or n >= 1 << 16 * r:
        raise _NotSo(f"{where}.kdfparams are none of scrypt: n is no power of two below 2^(16 r)")


def _fields(part: Any, where: str, names: set[str], *, more: bool = False) -> None:
    if not isinstance(part, dict):
        raise _NotSo(f"{where} is no object")
    if not names <= set(part) or (not more and set(part) != names):
        raise _NotSo(f"{where} has not the fields {', '.join(sorted(names))}")


def _hex(text: Any, where: str, least: int, most: int) -> None:
    if (
        not isinstance(text, str)
        or len(text) % 2
        or not least <= len(text) // 2 <= most
        or set(text) - set("0123456789abcdefABCDEF")
    ):
        raise _NotSo(f"{where} is not {least}{'' if least == most else f' to {most}'} bytes in hex")
