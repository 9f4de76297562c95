"""The content store beside an IPFS daemon: what is put goes to both, what is missing here is asked of the daemon."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from contracts.cid import CHUNK, Cid, parse_cid
from contracts.dag import MAX_BLOCK, broken_files, read_file
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.rpc_errors import redact
from contracts.store import ANY_SIZE, BlockStore

TRIES = 3
FIRST_PAUSE = 0.3
"""Seconds before the second try; doubled for each one after."""
TIMEOUT = (3.0, 30.0)
"""Seconds to connect, and for an answer."""
FETCH_TIMEOUT = (3.0, 20.0)
"""The same for a block: a daemon that has none of it waits for others to send it."""

_T = TypeVar("_T")


def to_multiaddr(address: str) -> str:
    """A daemon's RPC address as a multiaddr: from `http://host:port`, or a multiaddr as it is.

    Raises:
        LedgerError: neither of them.
    """
    if address.startswith("/"):
        return address.rstrip("/")
    hint = "For example http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001/http."
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise LedgerError(f"{redact(address)} is no address of an IPFS daemon.", hint) from None
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or parts.username:
        raise LedgerError(f"{redact(address)} is no address of an IPFS daemon.", hint)
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    family = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    return f"/{family}/{host}/tcp/{port}/{parts.scheme}"


class IpfsStore:
    """A BlockStore and an IPFS daemon.

    Files are put into both and pinned on the daemon, whose CID must be the one computed here. They are read from the
    folder first, then block by block from the daemon; nothing that it sends is believed before it is hashed.
    """

    kind = "ipfs"

    def __init__(self, address: str, local: BlockStore) -> None:
        self._address = redact(address)
        self._local = local
        # It warns about urllib3's `strict` and about daemons of a newer version than it knows.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ipfshttpclient

            try:
                # Client, not connect(): that one refuses daemons from 0.8 on.
                self._client: Any = ipfshttpclient.Client(to_multiaddr(address), timeout=TIMEOUT)
            except ipfshttpclient.exceptions.AddressError:
                raise LedgerError(
                    f"{self._address} is no address of an IPFS daemon.",
                    "For example http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001/http.",
                ) from None
        self.version = str(self._ask(self._client.version, "its version")["Version"])

    def put(self, data: bytes) -> str:
        """Keep a file here and on the daemon, pinned; its CID.

        Raises:
            ContentError: the daemon computed another CID.
            LedgerUnreachable: it does not answer.
        """
        own = self._local.put(data)

        def add() -> Any:
            return self._client.add(
                io.BytesIO(data),
                cid_version=1,
                raw_leaves=True,
                chunker=f"size-{CHUNK}",
                pin=True,
                opts={"cid-base": "base32"},  # js-ipfs would answer in base58
            )

        answer = self._ask(add, "keeping a file")
        theirs = str(answer["Hash"])
        if theirs != own:
            raise ContentError(
                f"the IPFS daemon {self._address} names a file {theirs}; its CID is {own}.",
                "Is its chunker or its hash set to something unusual?",
            )
        return own

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        """A file, from here or else from the daemon; see ContentStore."""
        return read_file(parse_cid(cid), self.get_block, max_bytes=max_bytes)

    def has(self, cid: str) -> bool:
        """Whether the whole file is here or on the daemon, undamaged."""
        try:
            return not broken_files([parse_cid(cid)], self.get_block, max_bytes=ANY_SIZE, most=2 * ANY_SIZE)
        except ContentError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get_block(self, cid: Cid) -> bytes:
        """One block, from here or else from the daemon, hashed; what came is kept here."""
        try:
            block = self._local.get_block(cid)
            if cid.matches(block):
                return block
        except ContentError:
            pass
        fetched = self._ask(lambda: self._read(cid), f"block {cid}")
        if not cid.matches(fetched):
            raise ContentError(
                f"block {cid} of the IPFS daemon {self._address} is damaged: it does not hash to its CID."
            )
        self._local.put_block(cid, fetched)
        return fetched

    def _read(self, cid: Cid) -> bytes:
        """One block, read chunk by chunk so that an endless answer is cut off."""
        from ipfshttpclient import exceptions

        out = bytearray()
        try:
            with self._client.block.get(str(cid), stream=True, timeout=FETCH_TIMEOUT) as pieces:
                for piece in pieces:
                    out += piece
                    if len(out) > MAX_BLOCK:
                        raise ContentError(
                            f"block {cid} of the IPFS daemon {self._address} has more than {MAX_BLOCK} bytes."
                        )
        except exceptions.TimeoutError:
            self._client.version()  # raises where it is the daemon that is silent
            raise ContentError(
                f"the IPFS daemon {self._address} did not find block {cid} in {FETCH_TIMEOUT[1]:.0f} s.",
                "Is a node online that has it?",
            ) from None
        return bytes(out)

    def _ask(self, question: Callable[[], _T], what: str) -> _T:
        """Ask the daemon, again after a pause where it does not answer; its errors in words."""
        from ipfshttpclient import exceptions

        hint = "Start it (`ipfs daemon`) or mend the address given with --ipfs, and try again."
        pause = FIRST_PAUSE
        for attempt in range(1, TRIES + 1):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    return question()
            except exceptions.TimeoutError:
                problem: LedgerError = LedgerUnreachable(
                    f"the IPFS daemon {self._address} gave no answer in time ({what}).", hint
                )
            except exceptions.ConnectionError:
                problem = LedgerUnreachable(f"the IPFS daemon {self._address} does not answer.", hint)
            except exceptions.ErrorResponse as error:
                # The daemon said no: asking again does not help.
                raise ContentError(f"the IPFS daemon {self._address} refused {what}: {str(error)[:200]}.") from None
            except (exceptions.Error, OSError) as error:
                problem = LedgerUnreachable(
                    f"what answers at {self._address} is no IPFS daemon's RPC interface ({type(error).__name__}).", hint
                )
            if attempt < TRIES:
                time.sleep(pause)
                pause *= 2
        raise problem
