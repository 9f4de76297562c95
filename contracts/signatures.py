"""Signatures of published models: EIP-712 over chain, contract, task, round, node and CID, against replay.

    domain  EIP712Domain(name "qrun FederatedRounds", version "1", chainId, verifyingContract)
    struct  Model(bytes32 task,uint32 round,uint256 node,bytes32 digest,uint8 codec)

`task` is the digest of the task's config; `digest` and `codec` are those of the model's CID (version 1). Signed is the
EIP-712 digest: with secp256k1 by the node's account (RFC 6979: deterministic), or with ML-DSA-65 (FIPS 204) by a key
whose public half has the SHA-256 that the node registered. A signature file is one canonical JSON object on one line:

    {"format":"qrun-signature/1","scheme":"secp256k1","signature":"r s v, 65 bytes as hex"}
    {"format":"qrun-signature/1","public_key":"hex","scheme":"ml-dsa-65","signature":"hex"}
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from contracts.cid import parse_cid
from contracts.errors import ContentError, LedgerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
    from eth_account.messages import SignableMessage
    from eth_account.signers.local import LocalAccount

FORMAT = "qrun-signature/1"
SCHEMES = ("secp256k1", "ml-dsa-65")
NAME, VERSION = "qrun FederatedRounds", "1"
MAX_BYTES = 12_288
"""An ML-DSA-65 file has 10,603 bytes."""
SEED_BYTES = 32
"""An ML-DSA-65 key is kept as its seed (FIPS 204, xi)."""
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_TYPES = {
    "Model": [
        {"name": "task", "type": "bytes32"},
        {"name": "round", "type": "uint32"},
        {"name": "node", "type": "uint256"},
        {"name": "digest", "type": "bytes32"},
        {"name": "codec", "type": "uint8"},
    ]
}
# The files have one spelling each, so that size, schema, hex and canonical form are one match.
_SECP256K1 = re.compile(rb'\{"format":"qrun-signature/1","scheme":"secp256k1","signature":"([0-9a-f]{130})"\}')
_MLDSA = re.compile(
    rb'\{"format":"qrun-signature/1","public_key":"([0-9a-f]{3904})","scheme":"ml-dsa-65","signature":"([0-9a-f]{6618})"\}'
)


class SignatureError(ContentError):
    """A signature file that fails a check; the model counts as absent."""


@dataclass(frozen=True)
class ModelStatement:
    """What is signed: this model is that node's, in this round of this task.

    Attributes:
        chain_id: EIP-155 id of the chain.
        contract: Address of the task's contract.
        task: The task's config digest, 32 bytes.
        round: Its round.
        node: The publisher's number.
        cid: Of the model file.
    """

    chain_id: int
    contract: str
    task: bytes
    round: int
    node: int
    cid: str


def _message(statement: ModelStatement) -> SignableMessage:
    from eth_account.messages import encode_typed_data
    from eth_utils.address import is_address

    content = parse_cid(statement.cid).v1
    if not is_address(statement.contract) or len(statement.task) != 32:
        raise LedgerError("a statement to sign names a contract's address and a task's digest of 32 bytes.")
    if not (0 < statement.chain_id < 1 << 256 and 0 <= statement.round < 1 << 32 and 0 <= statement.node < 1 << 256):
        raise LedgerError(
            f"chain {statement.chain_id}, round {statement.round}, node {statement.node}: out of range in a statement."
        )
    return encode_typed_data(
        {
            "name": NAME,
            "version": VERSION,
            "chainId": statement.chain_id,
            "verifyingContract": statement.contract,
        },
        _TYPES,
        {
            "task": statement.task,
            "round": statement.round,
            "node": statement.node,
            "digest": content.digest,
            "codec": content.codec,
        },
    )


def statement_digest(statement: ModelStatement) -> bytes:
    """The EIP-712 digest of a statement: keccak256(0x19 0x01, domain separator, struct hash), 32 bytes.

    Raises:
        ContentError: the CID is malformed.
        LedgerError: a number, the address or the task's digest is out of range.
    """
    from eth_utils.crypto import keccak

    message = _message(statement)
    return keccak(b"\x19" + bytes(message.version) + bytes(message.header) + bytes(message.body))


def mldsa_key(seed: bytes) -> MLDSA65PrivateKey:
    """The ML-DSA-65 key of a seed of 32 bytes.

    Raises:
        LedgerError: not 32 bytes, or the installed `cryptography` cannot do ML-DSA.
    """
    if len(seed) != SEED_BYTES:
        raise LedgerError(f"the seed of an ML-DSA-65 key has {SEED_BYTES} bytes, not {len(seed)}.")
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

        return MLDSA65PrivateKey.from_seed_bytes(seed)
    except (ImportError, UnsupportedAlgorithm):
        raise LedgerError(
            "the installed `cryptography` cannot do ML-DSA-65.", "Install cryptography 48 or newer."
        ) from None


def signing_key(key: MLDSA65PrivateKey) -> bytes:
    """What a node registers of its ML-DSA-65 key: the SHA-256 of its public half, 32 bytes."""
    return hashlib.sha256(key.public_key().public_bytes_raw()).digest()


def sign(statement: ModelStatement, key: LocalAccount | MLDSA65PrivateKey) -> bytes:
    """Sign a statement.

    Args:
        statement: What is signed.
        key: The node's account, or its ML-DSA-65 key. The account's signature is deterministic; the other is not
            (FIPS 204's hedged form), so that its file has to be kept.

    Returns:
        The signature file.
    """
    from eth_account.signers.local import LocalAccount

    if isinstance(key, LocalAccount):
        signature = key.sign_message(_message(statement)).signature
        return f'{{"format":"{FORMAT}","scheme":"secp256k1","signature":"{bytes(signature).hex()}"}}'.encode()
    public = key.public_key().public_bytes_raw().hex()
    signed = key.sign(statement_digest(statement)).hex()
    return f'{{"format":"{FORMAT}","public_key":"{public}","scheme":"ml-dsa-65","signature":"{signed}"}}'.encode()


def check(data: bytes, statement: ModelStatement, *, address: str, signing_key: bytes | None) -> None:
    """Check a signature file, hostile until then.

    Args:
        data: The file.
        statement: What it has to sign.
        address: The account of the node that must have signed.
        signing_key: The SHA-256 of its ML-DSA-65 public key, as registered; None where it signs with its account. What
            was registered decides the scheme: neither stands in for the other.

    Raises:
        SignatureError: naming what is wrong.
        LedgerError: the statement itself is out of range.
    """
    if len(data) > MAX_BYTES:
        raise SignatureError(f"signature file rejected: {len(data)} bytes, more than {MAX_BYTES}.")
    digest = statement_digest(statement)
    pattern, scheme = (_SECP256K1, SCHEMES[0]) if signing_key is None else (_MLDSA, SCHEMES[1])
    match = pattern.fullmatch(data)
    if match is None:
        raise SignatureError(f"signature file rejected: not of format {FORMAT} with scheme {scheme}, or not canonical.")
    parts = [bytes.fromhex(part.decode()) for part in match.groups()]
    if signing_key is None:
        if _recover(digest, parts[0]) != address.lower():
            raise SignatureError(f"signature file rejected: account {address} did not sign this statement.")
        return
    public, signature = parts
    if hashlib.sha256(public).digest() != signing_key:
        raise SignatureError("signature file rejected: its public key is not the registered one.")
    if not _mldsa_signed(public, signature, digest):
        raise SignatureError("signature file rejected: its key did not sign this statement.")


# Every peer checks every other's file; in one process the curve's arithmetic, in plain Python, is done once.
@lru_cache(maxsize=4096)
def _recover(digest: bytes, signature: bytes) -> str:
    """The address, in lower case, whose key made a signature of 65 bytes (r, s, v).

    Raises:
        SignatureError: r or s out of range, s in the upper half (a malleated copy), v not 27 or 28, or no key fits.
    """
    from eth_keys.datatypes import Signature
    from eth_keys.exceptions import BadSignature
    from eth_utils.exceptions import ValidationError

    r, s, v = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if not (0 < r < CURVE_ORDER and 0 < s <= CURVE_ORDER // 2 and v in (27, 28)):
        raise SignatureError("signature file rejected: r, s or v is not in its canonical range.")
    try:
        public = Signature(vrs=(v - 27, r, s)).recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError, ValueError):
        raise SignatureError("signature file rejected: no key fits it.") from None
    return str(public.to_address())


@lru_cache(maxsize=4096)
def _mldsa_signed(public: bytes, signature: bytes, digest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

        MLDSA65PublicKey.from_public_bytes(public).verify(signature, digest)
    except (ImportError, UnsupportedAlgorithm):
        raise LedgerError(
            "the installed `cryptography` cannot do ML-DSA-65.", "Install cryptography 48 or newer."
        ) from None
    except (InvalidSignature, ValueError):
        return False
    return True
