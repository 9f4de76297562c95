"""IPFS gateways, read only: a block over HTTP from somebody who need not be trusted, for it is hashed.

Blocks are asked for as such (`?format=raw`, the trustless gateway of specs.ipfs.tech). A gateway that knows whole files
only, as that of js-ipfs does, sends the file instead: it is cut into blocks here, and they are taken where their root
is the CID that was asked for, which it is for every file that this store made.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from contracts.bounded_http import Deadline, Failure, Patience, ask, check_status, pieces_of
from contracts.cid import RAW, Cid, build
from contracts.dag import MAX_BLOCK
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.http_watch import new_session
from contracts.rpc_errors import redact

MAX_FILE = 64 << 20
"""Bytes of a file that is taken where a block was asked for and nobody says how long the file may be."""
_RAW = "application/vnd.ipld.raw"


@dataclass(frozen=True)
class _Answer:
    body: bytes
    is_block: bool


class Gateway:
    """A gateway by its address.

    Args:
        address: `https://host`, or `http://host:port`; without path, query and password.
        patience: How long it is waited for.

    Raises:
        LedgerError: that is no address of a gateway.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        self.address = redact(address)
        self._patience = patience or Patience()
        try:
            parts = urlsplit(address)
            host, _ = parts.hostname, parts.port
            plain = not (parts.path.strip("/") or parts.query or parts.fragment) and "@" not in parts.netloc
        except ValueError:
            host, plain = None, False
        if not host or not plain or parts.scheme not in ("http", "https"):
            raise LedgerError(
                f"{self.address} is no address of an IPFS gateway.",
                "For example https://gateway.example.org or http://127.0.0.1:8080.",
            )
        self._base = f"{parts.scheme}://{parts.netloc}"

    def fetch(
        self, cid: Cid, *, max_bytes: int = MAX_FILE, deadline: Deadline | None = None
    ) -> list[tuple[Cid, bytes]]:
        """The block of a CID, or all blocks of the file that it is the root of: hashed, children before parents.

        Args:
            cid: What is wanted; the last one of the list.
            max_bytes: Largest file taken, in bytes.
            deadline: Of all tries together.

        Raises:
            ContentError: the gateway has it not, or sends something else.
            LedgerUnreachable: it does not answer.
        """
        who = f"the IPFS gateway {self.address}"
        until = deadline or Deadline(self._patience.file)
        try:
            answer = ask(
                lambda: self._read(cid, max_bytes), self._patience, until, self._patience.block, late_passes=False
            )
        except Failure as failure:
            message = f"{who} {failure.reason} (block {cid})."
            if failure.kind != "late" and (failure.kind == "silent" or failure.passing):
                raise LedgerUnreachable(message, "Mend its address, or leave it out.") from None
            if failure.kind == "refused":
                message = f"{who} refused block {cid}: {failure.reason}."
            raise ContentError(message, "Try another gateway.") from None
        if cid.matches(answer.body):
            return [(cid.v1, answer.body)]
        if answer.is_block or cid.codec == RAW:
            raise ContentError(f"block {cid} of {who} is damaged: it does not hash to its CID.", "Try another gateway.")
        blocks = list(build(answer.body))
        if blocks[-1][0] != cid.v1:
            raise ContentError(
                f"{who} sends no blocks but whole files, and what it sent for {cid} does not have that CID.",
                "Is it damaged, or was it cut into blocks in another way? Try a gateway that knows ?format=raw.",
            )
        return blocks

    def _read(self, cid: Cid, max_bytes: int) -> _Answer:
        times = (self._patience.connect, self._patience.block)
        with (
            new_session() as session,
            session.get(
                f"{self._base}/ipfs/{cid.v1}?format=raw", headers={"Accept": _RAW}, timeout=times, stream=True
            ) as answer,
        ):
            check_status(answer)
            is_block = answer.headers.get("Content-Type", "").split(";")[0].strip().lower() == _RAW
            most = MAX_BLOCK if is_block or cid.codec == RAW else max(MAX_BLOCK, max_bytes)
            return _Answer(b"".join(pieces_of(answer, most)), is_block)
