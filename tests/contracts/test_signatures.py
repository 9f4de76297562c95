"""Signature files: EIP-712 by hand, replay, malleation, tampering, noise; both schemes."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from eth_abi import encode
from eth_account import Account
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.cid import DAG_PB, RAW, Cid, parse_cid
from contracts.errors import ContentError, LedgerError
from contracts.signatures import (
    CURVE_ORDER,
    MAX_BYTES,
    ModelStatement,
    SignatureError,
    check,
    mldsa_key,
    sign,
    signing_key,
    statement_digest,
)

ACCOUNT = Account.from_key(b"\x11" * 32)
OTHER = Account.from_key(b"\x12" * 32)
KEY, OTHER_KEY = mldsa_key(b"\x21" * 32), mldsa_key(b"\x22" * 32)
CID = str(Cid(RAW, hashlib.sha256(b"a model").digest()))
STATEMENT = ModelStatement(31337, "0x" + "5b" * 20, b"\x07" * 32, 3, 1, CID)

OTHERS = {
    "chain": replace(STATEMENT, chain_id=1),
    "contract": replace(STATEMENT, contract="0x" + "5c" * 20),
    "task": replace(STATEMENT, task=b"\x08" * 32),
    "round": replace(STATEMENT, round=4),
    "node": replace(STATEMENT, node=2),
    "model": replace(STATEMENT, cid=str(Cid(RAW, hashlib.sha256(b"another").digest()))),
    "codec": replace(STATEMENT, cid=str(Cid(DAG_PB, hashlib.sha256(b"a model").digest()))),
}

digests = st.binary(min_size=32, max_size=32)
statements = st.builds(
    ModelStatement,
    chain_id=st.integers(1, 2**64),
    contract=st.binary(min_size=20, max_size=20).map(lambda b: "0x" + b.hex()),
    task=digests,
    round=st.integers(0, 2**32 - 1),
    node=st.integers(0, 254),
    cid=st.builds(Cid, st.sampled_from([RAW, DAG_PB]), digests).map(str),
)


def by_hand(statement: ModelStatement) -> bytes:
    """EIP-712 written out: https://eips.ethereum.org/EIPS/eip-712."""
    domain = keccak(
        encode(
            ["bytes32", "bytes32", "bytes32", "uint256", "address"],
            [
                keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak(b"qrun FederatedRounds"),
                keccak(b"1"),
                statement.chain_id,
                statement.contract,
            ],
        )
    )
    cid = parse_cid(statement.cid)
    struct = keccak(
        encode(
            ["bytes32", "bytes32", "uint32", "uint256", "bytes32", "uint8"],
            [
                keccak(b"Model(bytes32 task,uint32 round,uint256 node,bytes32 digest,uint8 codec)"),
                statement.task,
                statement.round,
                statement.node,
                cid.digest,
                cid.codec,
            ],
        )
    )
    return keccak(b"\x19\x01" + domain + struct)


def secp(data: bytes, statement: ModelStatement = STATEMENT, address: str = ACCOUNT.address) -> None:
    check(data, statement, address=address, signing_key=None)


def mldsa(data: bytes, statement: ModelStatement = STATEMENT, key: bytes = signing_key(KEY)) -> None:
    check(data, statement, address=ACCOUNT.address, signing_key=key)


@given(statements)
def test_the_digest_is_that_of_eip_712(statement: ModelStatement) -> None:
    assert statement_digest(statement) == by_hand(statement)


@settings(max_examples=20, deadline=None)
@given(statements)
def test_what_was_signed_is_accepted_and_nothing_else(statement: ModelStatement) -> None:
    data = sign(statement, ACCOUNT)
    assert data == sign(statement, ACCOUNT), "RFC 6979: the same each time"
    secp(data, statement)
    with pytest.raises(SignatureError, match="did not sign"):
        secp(data, replace(statement, round=(statement.round + 1) % 2**32))
    post_quantum = sign(statement, KEY)
    mldsa(post_quantum, statement)
    with pytest.raises(SignatureError, match="did not sign"):
        mldsa(post_quantum, replace(statement, node=statement.node + 1))


@pytest.mark.parametrize("what", OTHERS)
def test_a_signature_cannot_be_replayed(what: str) -> None:
    with pytest.raises(SignatureError, match="did not sign"):
        secp(sign(STATEMENT, ACCOUNT), OTHERS[what])
    with pytest.raises(SignatureError, match="did not sign"):
        mldsa(sign(STATEMENT, KEY), OTHERS[what])


def test_somebody_elses_signature_is_refused() -> None:
    with pytest.raises(SignatureError, match="did not sign"):
        secp(sign(STATEMENT, OTHER))
    with pytest.raises(SignatureError, match="registered"):
        mldsa(sign(STATEMENT, OTHER_KEY))
    # The owner's public key in front of another key's signature.
    mine, theirs = sign(STATEMENT, KEY), sign(STATEMENT, OTHER_KEY)
    mixed = mine[: mine.index(b'"scheme"')] + theirs[theirs.index(b'"scheme"') :]
    with pytest.raises(SignatureError, match="did not sign"):
        mldsa(mixed)


def test_what_was_registered_decides_the_scheme() -> None:
    with pytest.raises(SignatureError, match="ml-dsa-65"):
        mldsa(sign(STATEMENT, ACCOUNT))
    with pytest.raises(SignatureError, match="secp256k1"):
        secp(sign(STATEMENT, KEY))


def spelt(r: int, s: int, v: int) -> bytes:
    body = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])
    return b'{"format":"qrun-signature/1","scheme":"secp256k1","signature":"%s"}' % body.hex().encode()


def parts(data: bytes) -> tuple[int, int, int]:
    raw = bytes.fromhex(data[-132:-2].decode())
    return int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:64], "big"), raw[64]


@given(st.integers(0, 50))
@settings(max_examples=10, deadline=None)
def test_a_malleated_signature_is_refused(round_: int) -> None:
    statement = replace(STATEMENT, round=round_)
    r, s, v = parts(sign(statement, ACCOUNT))
    assert s <= CURVE_ORDER // 2
    # The other of the two (s, n - s) recovers to the same account: only the range tells them apart.
    from eth_keys.datatypes import Signature

    twin = Signature(vrs=(55 - v - 27, r, CURVE_ORDER - s))
    assert twin.recover_public_key_from_msg_hash(by_hand(statement)).to_checksum_address() == ACCOUNT.address
    with pytest.raises(SignatureError, match="canonical range"):
        secp(spelt(r, CURVE_ORDER - s, 55 - v), statement)


@pytest.mark.parametrize(
    ("r", "s", "v"),
    [(0, 1, 27), (1, 0, 27), (CURVE_ORDER, 1, 27), (1, CURVE_ORDER, 27), (2**256 - 1, 1, 28), (1, 1, 0), (1, 1, 29)],
)
def test_numbers_out_of_range_are_refused(r: int, s: int, v: int) -> None:
    with pytest.raises(SignatureError, match="canonical range"):
        secp(spelt(r, s, v))


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    refused = 0
    for r in range(1, 40):
        with pytest.raises(SignatureError) as caught:
            secp(spelt(r, 1, 27))
        refused += "no key fits" in str(caught.value)
    assert refused, "about half of all r are no point's"


@pytest.mark.parametrize("scheme", ["secp256k1", "ml-dsa-65"])
def test_other_spellings_are_refused(scheme: str) -> None:
    data = sign(STATEMENT, ACCOUNT if scheme == "secp256k1" else KEY)
    checked = secp if scheme == "secp256k1" else mldsa
    checked(data)
    for other in (
        data + b"\n",
        b" " + data,
        data.replace(b":", b": ", 1),
        data[:-1] + b',"note":"x"}',
        data.upper(),
        data.replace(b'"signature":"', b'"signature":"0x'),
        data.replace(b"/1", b"/2"),
        data[:-10],
        b"",
        b"[" * 10_000,
        b"\xff\xfe",
        b"0" * (MAX_BYTES + 1),
    ):
        with pytest.raises(SignatureError):
            checked(other)


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.parametrize("scheme", ["secp256k1", "ml-dsa-65"])
def test_no_flipped_bit_passes(scheme: str, data: st.DataObject) -> None:
    file = bytearray(FILES[scheme])
    at, bit = data.draw(st.integers(0, len(file) - 1)), data.draw(st.integers(0, 7))
    file[at] ^= 1 << bit
    with pytest.raises(SignatureError):
        (secp if scheme == "secp256k1" else mldsa)(bytes(file))


FILES = {"secp256k1": sign(STATEMENT, ACCOUNT), "ml-dsa-65": sign(STATEMENT, KEY)}


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(SignatureError):
        secp(noise)
    with pytest.raises(SignatureError):
        mldsa(noise)


def test_files_are_one_block_and_below_the_limit() -> None:
    assert len(FILES["secp256k1"]) == 195
    assert len(FILES["ml-dsa-65"]) == 10_603
    assert max(map(len, FILES.values())) <= MAX_BYTES


@pytest.mark.parametrize(
    "statement",
    [
        replace(STATEMENT, round=2**32),
        replace(STATEMENT, node=-1),
        replace(STATEMENT, chain_id=0),
        replace(STATEMENT, contract="0x12"),
        replace(STATEMENT, task=b"short"),
        replace(STATEMENT, cid="no CID"),
    ],
)
def test_a_statement_out_of_range_is_told(statement: ModelStatement) -> None:
    with pytest.raises(LedgerError):
        sign(statement, ACCOUNT)


def test_a_malformed_cid_is_content_that_fails() -> None:
    with pytest.raises(ContentError):
        statement_digest(replace(STATEMENT, cid="bafy"))


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(LedgerError, match="32 bytes"):
        mldsa_key(b"short")
