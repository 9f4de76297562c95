"""Keystores: round trips, other tools, strangers' eyes, hostile files, and silence about what they hold."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import keystore, private_file
from contracts.errors import LedgerError
from contracts.keystore import (
    MAX_BYTES,
    NodeSecrets,
    Told,
    create_keystore,
    load_account,
    load_keystore,
    new_secrets,
    read_told,
)
from contracts.private_file import read_password, read_private, write_private

CHEAP = 1 << 4
PASSWORD = "correct hörse battery"
KEPT = NodeSecrets(b"\x11" * 32, b"\x22" * 32, b"\x33" * 32)

keys = st.binary(min_size=32, max_size=32)
accounts = st.integers(1, keystore._ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "node.json"
    create_keystore(made, KEPT, PASSWORD, work_factor=CHEAP)
    return made


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(accounts, keys, st.none() | keys, passwords)
def test_what_goes_in_comes_out(
    tmp_path: Path, chain: bytes, exchange: bytes, signing: bytes | None, password: str
) -> None:
    path = tmp_path / os.urandom(8).hex()
    kept = NodeSecrets(chain, exchange, signing)
    create_keystore(path, kept, password, work_factor=CHEAP)
    assert load_keystore(path, password) == kept
    assert path.stat().st_size < MAX_BYTES
    with pytest.raises(LedgerError, match="password wrong"):
        load_keystore(path, password + "x")
    text = path.read_text().lower()
    assert all(part is None or part.hex() not in text for part in (chain, exchange, signing))


def test_any_ethereum_tool_reads_the_account(path: Path) -> None:
    body = json.loads(path.read_text())
    assert bytes(Account.decrypt(body, PASSWORD)) == KEPT.chain
    assert set(body) == {"address", "crypto", "id", "version", "qrun"}
    assert "0x" + body["address"].lower() == KEPT.address.lower()


def test_what_it_says_of_itself_without_the_password(tmp_path: Path, path: Path) -> None:
    assert read_told(path) == Told(KEPT.address, of_node=True, signing=True)
    plain = tmp_path / "plain"
    create_keystore(plain, NodeSecrets(KEPT.chain, KEPT.exchange), PASSWORD, work_factor=CHEAP)
    assert read_told(plain) == Told(KEPT.address, of_node=True, signing=False)
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="chmod 600"):
        read_told(path)


def test_the_account_of_another_tool(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(json.dumps(Account.encrypt(KEPT.chain, PASSWORD, kdf="scrypt", iterations=CHEAP)))
    other.chmod(0o600)
    assert read_told(other) == Told(KEPT.address, of_node=False, signing=False)
    assert load_account(other, PASSWORD) == load_account(path, PASSWORD) == KEPT.chain
    with pytest.raises(LedgerError, match=r"an Ethereum account alone.*`qrun key import`"):
        load_keystore(other, PASSWORD)
    with pytest.raises(LedgerError, match="password wrong"):
        load_account(other, PASSWORD + "x")
    rewrite(other, _set("address", to="11" * 20))
    with pytest.raises(LedgerError, match="not the account that it names"):
        load_account(other, PASSWORD)
    other.write_text(json.dumps(Account.encrypt(KEPT.chain, PASSWORD, kdf="pbkdf2", iterations=16)))
    with pytest.raises(LedgerError, match=r"no keystore of an account.*scrypt"):
        load_account(other, PASSWORD)


def test_the_cost_of_a_real_one(tmp_path: Path) -> None:
    """128 MiB each; not cheaper by default."""
    path = tmp_path / "k"
    create_keystore(path, KEPT, PASSWORD)
    body = json.loads(path.read_text())
    for part in (body["crypto"], body["qrun"]):
        cost = part["kdfparams"]
        assert (cost["n"], cost["r"], cost["p"]) == (1 << 17, 8, 1)
    assert body["crypto"]["kdfparams"]["salt"] != body["qrun"]["kdfparams"]["salt"]
    assert load_keystore(path, PASSWORD) == KEPT


def test_fresh_secrets_are_fresh() -> None:
    made = [new_secrets(signing=True) for _ in range(3)]
    assert len({part for one in made for part in (one.chain, one.exchange, one.signing)}) == 9
    assert new_secrets().signing is None


@pytest.mark.parametrize("chain", [bytes(32), keystore._ORDER.to_bytes(32, "big"), b"\xff" * 32, b"x" * 31, "x" * 32])
def test_what_is_no_key_of_an_account(chain: Any) -> None:
    with pytest.raises(LedgerError, match=r"secrets are 32 bytes|no key of secp256k1"):
        NodeSecrets(chain, bytes(32))


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_can_read_it_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    """Whatever is in the folder has mode 0600 whenever bytes or a name are given to it."""
    seen: list[tuple[str, int]] = []

    def look() -> None:
        seen.extend((p.name, stat.S_IMODE(p.stat().st_mode)) for p in tmp_path.iterdir())

    for name in ("fsync", "link"):
        original = getattr(os, name)

        def watched(*args: Any, original: Any = original) -> Any:
            look()
            result = original(*args)
            look()
            return result

        monkeypatch.setattr(os, name, watched)
    before = os.umask(umask)
    try:
        create_keystore(tmp_path / "k", KEPT, PASSWORD, work_factor=CHEAP)
    finally:
        os.umask(before)
    assert len(seen) >= 4
    assert {mode for _, mode in seen} == {0o600}
    assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_it_is_made_with_its_mode_and_never_gets_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, int]] = []
    original = os.open

    def watched(path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        if flags & os.O_CREAT:
            opened.append((flags, mode))
        return original(path, flags, mode, **rest)

    monkeypatch.setattr(os, "open", watched)
    write_private(tmp_path / "k", b"x")
    assert [(bool(flags & os.O_EXCL), mode) for flags, mode in opened] == [(True, 0o600)]


@pytest.mark.parametrize("there", ["file", "link", "dangling link", "folder"])
def test_what_is_there_is_never_written_over(tmp_path: Path, there: str) -> None:
    path, other = tmp_path / "k", tmp_path / "other"
    if there == "folder":
        path.mkdir()
    elif there == "file":
        path.write_text("mine")
    else:
        if there == "link":
            other.write_text("mine")
        path.symlink_to(other)
    for write in (
        lambda: create_keystore(path, KEPT, PASSWORD, work_factor=CHEAP),
        lambda: write_private(path, b"x"),
    ):
        with pytest.raises(LedgerError, match="exists"):
            write()
    assert not other.exists() or other.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == (2 if there == "link" else 1)


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(private_file.os, "link", no_link)
    write_private(tmp_path / "k", b"x")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    with pytest.raises(LedgerError, match="exists"):
        write_private(tmp_path / "k", b"y")
    assert (tmp_path / "k").read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_file.os, "fsync", full)
    with pytest.raises(LedgerError, match="No space left on device"):
        write_private(tmp_path / "k", b"x")
    assert not list(tmp_path.iterdir())


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no folder"):
        write_private(tmp_path / "a" / "k", b"x")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o644])
def test_a_file_that_others_can_touch_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(LedgerError, match=r"by others than its owner.*chmod 600"):
        load_keystore(path, PASSWORD)
    path.chmod(0o400)
    assert load_keystore(path, PASSWORD) == KEPT


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "missing", "large", "device"])
def test_what_is_no_private_file(tmp_path: Path, path: Path, kind: str) -> None:
    other = tmp_path / "other"
    words = {"missing": "No such file", "large": "more than", "link": "symbolic link"}.get(kind, "no plain file")
    if kind == "link":
        other.symlink_to(path)
    elif kind == "fifo":
        os.mkfifo(other, 0o600)
    elif kind == "folder":
        other.mkdir(0o700)
    elif kind == "device":
        other = Path("/dev/zero")
    elif kind == "large":
        other.touch(0o600)
        os.truncate(other, 1 << 40)
    began = time.monotonic()
    for read in (
        lambda: load_keystore(other, PASSWORD),
        lambda: read_password(other),
        lambda: read_private(other, max_bytes=10, what="it"),
    ):
        with pytest.raises(LedgerError, match=words):
            read()
    assert time.monotonic() - began < 2


# -- hostile files ----------------------------------------------------------------------------------------------------


def _set(*where: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for name in where[:-1]:
            body = body[name]
        body[where[-1]] = to

    return change


COSTS = [("crypto", "kdfparams"), ("qrun", "kdfparams")]
HOSTILE = [
    *(
        _set(*where, name, to=value)
        for where in COSTS
        for name, value in [
            ("n", 1 << 40), ("n", 1 << 19), ("n", 10**400), ("n", 3), ("n", 1), ("n", 0), ("n", -2), ("n", True),
            ("n", "16"), ("n", 16.0), ("n", None), ("r", 1 << 30), ("r", 0), ("p", 1 << 30), ("p", 9), ("p", 0),
            ("dklen", 1 << 40), ("dklen", 16), ("salt", ""), ("salt", "zz" * 16), ("salt", 7), ("salt", "00" * 65),
        ]
    ),
    _set("crypto", "kdf", to="pbkdf2"), _set("crypto", "kdfparams", to={"c": 1 << 60, "dklen": 32}),
    _set("crypto", "cipher", to="aes-128-cbc"), _set("crypto", "mac", to=""), _set("crypto", "mac", to=["a"]),
    _set("crypto", "ciphertext", to="00" * 31), _set("crypto", "cipherparams", to={}), _set("crypto", to=[]),
    _set("version", to=4), _set("version", to=True), _set("address", to="x"), _set("qrun", to=None),
    _set("qrun", "version", to=2), _set("qrun", "ciphertext", to="00" * 81), _set("qrun", "kdf", to={}),
    _set("qrun", "cipherparams", "nonce", to="00"), _set("qrun", "more", to=1),
    lambda body: body.pop("qrun"), lambda body: body.pop("crypto"),
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_file_is_one_line_and_costs_nothing(path: Path, change: Any) -> None:
    rewrite(path, change)
    began = time.monotonic()
    with pytest.raises(LedgerError, match="is no keystore of a node, or damaged") as caught:
        load_keystore(path, PASSWORD)
    with suppress(LedgerError):  # one without a node's part is a keystore still
        assert not read_told(path).of_node
    assert time.monotonic() - began < 0.5
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 8000, b'{"a":' * 1600, b"1" * 8000, b'{"version":3,"version":3}',
     b'{"version": NaN}', bytes(8192)],
)  # fmt: skip
def test_what_is_no_keystore_at_all(tmp_path: Path, data: bytes) -> None:
    write_private(tmp_path / "k", data)
    with pytest.raises(LedgerError, match="is no keystore of a node, or damaged"):
        load_keystore(tmp_path / "k", PASSWORD)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_goes_unseen(path: Path, data: st.DataObject) -> None:
    """A byte changed anywhere: it is refused, or (in what is not computed with) the secrets are the same."""
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    damaged = path.with_name("damaged")
    damaged.unlink(missing_ok=True)
    write_private(damaged, bad)
    try:
        assert load_keystore(damaged, PASSWORD) == KEPT
    except LedgerError as error:
        assert "damaged" in str(error)  # noqa: PT017
    with suppress(LedgerError):
        assert read_told(damaged).of_node in (True, False)


@pytest.mark.parametrize("part", ["crypto", "qrun", "address"])
def test_parts_of_two_files_do_not_go_together(tmp_path: Path, path: Path, part: str) -> None:
    """With the same password, even."""
    create_keystore(tmp_path / "other", new_secrets(signing=True), PASSWORD, work_factor=CHEAP)
    theirs = json.loads((tmp_path / "other").read_text())
    rewrite(path, _set(part, to=theirs[part]))
    with pytest.raises(LedgerError, match="is damaged"):
        load_keystore(path, PASSWORD)


# -- passwords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "password"),
    [(b"a b", "a b"), (b"a b\n", "a b"), (b"a b\r\n", "a b"), ("hörse\n".encode(), "hörse"), (b" x ", " x ")],
)
def test_a_password_from_a_file(tmp_path: Path, data: bytes, password: str) -> None:
    write_private(tmp_path / "p", data)
    assert read_password(tmp_path / "p", lambda: pytest.fail("asked")) == password


@pytest.mark.parametrize("data", [b"", b"\n", b"a\nb\n", b"\xff\xfe secret", b"a\0b", b"x" * 1025])
def test_what_is_no_password(tmp_path: Path, data: bytes) -> None:
    write_private(tmp_path / "p", data)
    with pytest.raises(LedgerError, match="password") as caught:
        read_password(tmp_path / "p")
    assert caught.value.__context__ is None
    assert "secret" not in str(caught.value)


def test_a_password_from_a_file_that_others_can_read(tmp_path: Path) -> None:
    write_private(tmp_path / "p", b"secret")
    (tmp_path / "p").chmod(0o640)
    with pytest.raises(LedgerError, match="by others than its owner"):
        read_password(tmp_path / "p")


def test_a_password_that_is_typed() -> None:
    assert read_password(None, lambda: "typed") == "typed"
    with pytest.raises(LedgerError, match="nobody to ask"):
        read_password(None)

    def gone() -> str:
        raise EOFError

    for prompt in (gone, lambda: ""):
        with pytest.raises(LedgerError, match="no password was given"):
            read_password(None, prompt)


@pytest.mark.parametrize("password", ["", "\ud800"])
def test_a_password_that_is_none(tmp_path: Path, path: Path, password: str) -> None:
    with pytest.raises(LedgerError, match="password"):
        create_keystore(tmp_path / "k", KEPT, password, work_factor=CHEAP)
    with pytest.raises(LedgerError, match="password"):
        load_keystore(path, password)
    assert not (tmp_path / "k").exists()


# -- silence ----------------------------------------------------------------------------------------------------------


def test_secrets_are_never_shown(tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by what holds them, nor by errors with all that hangs on them, nor by any log."""
    caplog.set_level(logging.DEBUG)
    shown = [repr(KEPT), str(KEPT), f"{KEPT}", f"{KEPT!r:>5}", repr([KEPT]), repr({"k": KEPT})]
    trials: list[Callable[[], object]] = [
        lambda: load_keystore(path, PASSWORD + "!"),
        lambda: create_keystore(path, KEPT, PASSWORD, work_factor=CHEAP),
        lambda: create_keystore(tmp_path / "a" / "b", KEPT, PASSWORD, work_factor=CHEAP),
        lambda: NodeSecrets(KEPT.chain, KEPT.exchange[:31]),
        lambda: NodeSecrets(b"\xff" * 32, KEPT.exchange),
    ]
    for part in ("crypto", "qrun"):
        damaged = tmp_path / part
        create_keystore(damaged, KEPT, PASSWORD, work_factor=CHEAP)
        rewrite(damaged, _set(part, "ciphertext", to=json.loads(damaged.read_text())[part]["ciphertext"][::-1]))
        trials.append(lambda damaged=damaged: load_keystore(damaged, PASSWORD))  # type: ignore[misc]
    for trial in trials:
        with pytest.raises(LedgerError) as caught:
            trial()
        error: BaseException | None = caught.value
        assert "\n" not in str(error)
        shown.append("".join(traceback.format_exception(caught.value)))
        while error is not None:
            shown += [repr(error), repr(error.args), repr(vars(error))]
            error = error.__context__
    assert load_keystore(path, PASSWORD) == KEPT
    text = "\n".join([*shown, caplog.text]).lower()
    for secret in (KEPT.chain, KEPT.exchange, KEPT.signing or b""):
        for form in (secret.hex(), repr(secret), repr(secret)[2:-1], str(int.from_bytes(secret, "big"))):
            assert form.lower() not in text
    assert PASSWORD not in text
