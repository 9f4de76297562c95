"""Sums over the nodes of which only the total is seen: additive masks that cancel in pairs.

After Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS 2017), without its
recovery from dropouts: a round needs every node anyway. Nodes i < j share the X25519 secret s_ij; for a context c both
draw the keystream m_ij = ChaCha20(HKDF-SHA256(s_ij, c)), node i adds it and node j subtracts it, all mod 2^64. What a
node publishes is uniform to whoever lacks the secrets, and the sum of all is the sum of the values.

What this does not hide: with one node there is no mask; with two, each finds the other's values by subtracting its own
from the total; in general n - 1 nodes that pool what they know find those of the last. Nodes follow the protocol (they
are curious, not malicious): one that adds nonsense spoils the total, which the bounds of the stage then usually show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from circuits.errors import QrunError

IntArray = npt.NDArray[np.int64]
MaskedArray = npt.NDArray[np.uint64]

KEY_BYTES = 32
_LABEL = b"qrun secure sum 1"


class SecureSum(Protocol):
    """Adds what the nodes hand in; says nothing but the total."""

    def __call__(self, stage: str, contributions: Sequence[IntArray]) -> IntArray:
        """Total of the nodes' arrays, which all have one shape; `stage` names what is summed, once in a task."""
        ...


class ExchangeKey:
    """A node's X25519 key pair. The private half comes from the operating system and is never shown."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> ExchangeKey:
        """A fresh key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, private: bytes) -> ExchangeKey:
        """The key of these 32 random bytes, as kept in a file that only its owner reads.

        Raises:
            QrunError: Not 32 bytes.
        """
        if len(private) != KEY_BYTES:
            raise QrunError(f"an exchange key has {KEY_BYTES} bytes, not {len(private)}.", "Start the run anew.")
        return cls(X25519PrivateKey.from_private_bytes(private))

    def to_bytes(self) -> bytes:
        """The private half, 32 bytes, to keep; never to publish."""
        return self._private.private_bytes_raw()

    def shared(self, peer: bytes) -> bytes:
        """The secret shared with the owner of public key `peer` (RFC 7748).

        Raises:
            QrunError: The key is malformed, or of low order (its secret would be known to all).
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:
            raise QrunError(
                f"a peer published an invalid exchange key ({peer.hex()[:16]}...).",
                "That node has to register again with a key of its own.",
            ) from None

    def __repr__(self) -> str:
        return f"ExchangeKey(public={self.public.hex()})"


def masked(values: IntArray, me: int, key: ExchangeKey, roster: Sequence[bytes], context: bytes) -> MaskedArray:
    """A node's values under its masks, uniform mod 2^64 to all who lack the secrets.

    Args:
        values: Any shape, the same at every node.
        me: The node's place in `roster`.
        key: Its key pair.
        roster: Public keys of all nodes, in the order that all agree on.
        context: Names the sum. The same context must never carry two different arrays (`Masker` sees to it), or
            their difference shows.

    Raises:
        QrunError: `roster` does not fit the key, names a key twice, or holds an invalid one.
    """
    if not 0 <= me < len(roster) or roster[me] != key.public:
        raise QrunError(f"node {me}'s exchange key is not the one registered for it.", "Start the run anew.")
    if len(set(roster)) != len(roster):
        raise QrunError("two nodes registered the same exchange key.", "Each node needs a key of its own.")
    out = np.ascontiguousarray(values).astype(np.int64, copy=False).view(np.uint64).copy()
    # Who takes part is bound into every mask: a changed membership gives masks that were never used before.
    members = hashlib.sha256(b"".join(roster)).digest()
    for j, peer in enumerate(roster):
        if j == me:
            continue
        pair = min(me, j).to_bytes(4, "big") + max(me, j).to_bytes(4, "big")
        info = _LABEL + members + pair + hashlib.sha256(context).digest()
        mask = _keystream(key.shared(peer), info, out.size).reshape(out.shape)
        # Unsigned numpy arrays wrap, which is addition mod 2^64.
        out = out + mask if me < j else out - mask
    return out


def total(contributions: Sequence[MaskedArray]) -> IntArray:
    """The sum mod 2^64 of all nodes' masked arrays, read with its sign.

    Raises:
        QrunError: No contributions, or of different shapes.
    """
    shapes = {c.shape for c in contributions}
    if len(shapes) != 1:
        raise QrunError(
            f"the nodes' contributions to a sum differ in shape: {sorted(shapes)}.",
            "All nodes must run the same version and see the same totals.",
        )
    out = np.zeros(contributions[0].shape, dtype=np.uint64)
    for contribution in contributions:
        out = out + contribution
    return out.view(np.int64)


class Masker:
    """One node's end of all sums of a task.

    It refuses to mask two different arrays in one context; the same array again (a run that resumes) gives the same
    masked array, from which nobody learns more.

    Args:
        me: The node's place in `roster`.
        key: Its key pair.
        roster: Public keys of all nodes, in registration order.
        task: Identifies the task, e.g. contract address and task number; no two tasks share it.
    """

    def __init__(self, me: int, key: ExchangeKey, roster: Sequence[bytes], task: bytes) -> None:
        self.me = me
        self.key = key
        self.roster = tuple(roster)
        self.task = task
        self._used: dict[bytes, bytes] = {}

    def __call__(self, stage: str, values: IntArray) -> MaskedArray:
        """`values` under the masks of this task and stage.

        Raises:
            QrunError: Other values went out under this stage before.
        """
        context = len(self.task).to_bytes(4, "big") + self.task + stage.encode()
        content = repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()
        digest = hashlib.sha256(content).digest()
        if self._used.setdefault(context, digest) != digest:
            raise QrunError(
                f"node {self.me} was asked to mask other values in stage {stage!r}, which it has done before.",
                "Masks are used once: their second use would show the difference. Start the run anew.",
            )
        return masked(values, self.me, self.key, self.roster, context)


class MaskedSum:
    """All nodes of a task in one process, each with its own `Masker`: a `SecureSum`.

    What passes from the maskers to the sum is what would travel between machines.
    """

    def __init__(self, keys: Sequence[ExchangeKey], task: bytes) -> None:
        roster = [key.public for key in keys]
        self.maskers = tuple(Masker(i, key, roster, task) for i, key in enumerate(keys))

    def __call__(self, stage: str, contributions: Sequence[IntArray]) -> IntArray:
        """Total of the nodes' arrays, in the order of the keys.

        Raises:
            QrunError: Not one contribution a node, shapes differ, or a stage is used twice for different values.
        """
        if len(contributions) != len(self.maskers):
            raise QrunError(
                f"{len(contributions)} contributions came to stage {stage!r}, there are {len(self.maskers)} nodes.",
                "Every registered node has to take part, or no mask cancels.",
            )
        return total([masker(stage, values) for masker, values in zip(self.maskers, contributions, strict=True)])


def plain_sum(stage: str, contributions: Sequence[IntArray]) -> IntArray:
    """The same total without masks: the reference that tests compare with, and what a single node does."""
    return total([np.ascontiguousarray(c).astype(np.int64, copy=False).view(np.uint64) for c in contributions])


def _keystream(secret: bytes, info: bytes, words: int) -> MaskedArray:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
    # Nonce and counter start at zero: the key is used for this one keystream.
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(8 * words))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)
