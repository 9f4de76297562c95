"""One IPFS daemon, asked over its RPC interface through ipfshttpclient; nothing that it says is believed unchecked."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from contracts.bounded_http import Deadline, Failure, Patience, ask, check_status, one_line, pieces_of
from contracts.cid import CHUNK, Cid, cid_of, parse_cid
from contracts.dag import MAX_BLOCK
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.http_watch import bound_session
from contracts.rpc_errors import redact

START = "Start it (`ipfs daemon`) or mend the address given with --ipfs, and try again."
MAX_ANSWER = 1 << 20
"""Bytes of an answer that is no block."""

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


def _bounded_client(address: str, patience: Patience) -> Any:
    """ipfshttpclient's Client, whose answers end: bounded in size, and cut when a Watch's time is up.

    Its own reads an answer without Content-Length whole before anybody can look at it, and follows redirects.
    """
    import ipfshttpclient
    from ipfshttpclient.client import DEFAULT_BASE
    from ipfshttpclient.http_requests import ClientSync

    class Transport(ClientSync):
        def _make_session(self) -> Any:
            return bound_session(super()._make_session())

        def _do_raise_for_status(self, response: Any) -> None:
            check_status(response)

        def _request(self, method: str, path: str, params: Any, **rest: Any) -> Any:
            closables, _ = super()._request(method, path, params, **rest)
            most = MAX_BLOCK if path.strip("/") == "block/get" else MAX_ANSWER
            return closables, pieces_of(closables[0], most)

    times = (patience.connect, max(patience.answer, patience.block))
    # Client, not connect(): that one refuses daemons from 0.8 on.
    client = ipfshttpclient.Client(address, timeout=times)
    client._client = Transport(address, DEFAULT_BASE, timeout=times)
    return client


def _fields(answer: Any) -> dict[str, Any]:
    """An answer's JSON object; none where it is something else."""
    raw = answer.as_json() if hasattr(answer, "as_json") else answer
    return raw if isinstance(raw, dict) else {}


class Daemon:
    """A daemon by its address; nothing is asked of it yet.

    Args:
        address: `http://host:port`, or a multiaddr.
        patience: How long it is waited for.

    Raises:
        LedgerError: that is no address of a daemon.
    """

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        self.address = redact(address)
        self.patience = patience or Patience()
        # It warns about urllib3's `strict` and about daemons of a newer version than it knows.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ipfshttpclient

            try:
                self._client = _bounded_client(to_multiaddr(address), self.patience)
            except ipfshttpclient.exceptions.AddressError:
                raise LedgerError(
                    f"{self.address} is no address of an IPFS daemon.",
                    "For example http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001/http.",
                ) from None

    def version(self, deadline: Deadline | None = None) -> str:
        """What it calls its version.

        Raises:
            LedgerUnreachable: nobody answers there, or no IPFS daemon's RPC interface.
        """
        answer = _fields(self._ask(self._client.version, "its version", deadline))
        if not isinstance(answer.get("Version"), str):
            raise self._no_daemon("names no version")
        return one_line(answer["Version"])

    def add(self, data: bytes, deadline: Deadline | None = None) -> str:
        """Keep a file there, pinned with all its blocks, so that garbage collection leaves it; its CID.

        Raises:
            ContentError: the daemon computed another CID, refused, or does not hold the pin.
            LedgerUnreachable: it does not answer.
        """
        own = str(cid_of(data))

        def add() -> Any:
            return self._client.add(
                io.BytesIO(data),
                cid_version=1,
                raw_leaves=True,
                chunker=f"size-{CHUNK}",
                pin=True,
                opts={"cid-base": "base32"},  # js-ipfs would answer in base58
            )

        until = deadline or Deadline(self.patience.file)
        answer = self._ask(add, "keeping a file", until, self.patience.file)
        theirs = _fields(answer).get("Hash")
        if theirs != own:
            raise ContentError(
                f"the IPFS daemon {self.address} names a file {str(theirs)[:100]!a}; its CID is {own}.",
                "Is its chunker or its hash set to something unusual?",
            )
        if not self.has_pin(own, until):
            self.pin(own, until)
        return own

    def pin(self, cid: str, deadline: Deadline | None = None) -> None:
        """Let the daemon keep a file with all its blocks, which it fetches where it has them not.

        Raises:
            ContentError: it does not find them, refused, or does not hold the pin though it said so.
            LedgerUnreachable: it does not answer.
        """
        name = str(parse_cid(cid))
        until = deadline or Deadline(self.patience.file)
        try:
            self._ask(
                lambda: self._client.pin.add(name), f"pinning {name}", until, self.patience.file, late_is_ours=False
            )
        except Failure:
            raise self._not_found(f"all of {name}", "while pinning it") from None
        if not self.has_pin(name, until):
            raise ContentError(
                f"the IPFS daemon {self.address} does not hold the pin of {name}, though it took it.",
                "Its garbage collection may take the file: look at its repository (`ipfs pin ls`, `ipfs repo verify`).",
            )

    def has_pin(self, cid: str, deadline: Deadline | None = None) -> bool:
        """Whether a file is pinned with all its blocks.

        Raises:
            LedgerUnreachable: it does not answer.
        """
        wanted = parse_cid(cid)

        def look() -> Any:
            opts = {"cid-base": "base32"}
            return self._client.pin.ls(cid, type="recursive", opts=opts)

        try:
            answer = self._ask(look, f"whether {cid} is pinned", deadline)
        except ContentError:  # an error is its way to say no
            return False
        keys = _fields(answer).get("Keys")
        for key, pin in keys.items() if isinstance(keys, dict) else ():
            try:
                found = parse_cid(key)
            except ContentError:
                continue
            if found.v1 == wanted.v1 and isinstance(pin, dict) and pin.get("Type") == "recursive":
                return True
        return False

    def block(self, cid: Cid, deadline: Deadline | None = None) -> bytes:
        """One block, hashed.

        Raises:
            ContentError: the daemon did not find it, or sent something else.
            LedgerUnreachable: it does not answer.
        """

        def read() -> bytes:
            return bytes(self._client.block.get(str(cid)))

        what = f"block {cid}"
        try:
            block = self._ask(read, what, deadline, self.patience.block, late_is_ours=False)
        except Failure:
            times = f"({self.patience.block:g} s for a block, {self.patience.file:g} s for its file)"
            raise self._not_found(what, times) from None
        if not cid.matches(block):
            raise ContentError(f"{what} of the IPFS daemon {self.address} is damaged: it does not hash to its CID.")
        return block

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(
        self,
        question: Callable[[], _T],
        what: str,
        deadline: Deadline | None,
        seconds: float | None = None,
        *,
        late_is_ours: bool = True,
    ) -> _T:
        """Ask the daemon; its failures in words. Not `late_is_ours`: a Failure where the time was up."""
        until = deadline or Deadline(self.patience.file)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ask(question, self.patience, until, seconds or self.patience.answer, late_passes=late_is_ours)
        except Failure as failure:
            problem = failure
        if problem.kind == "late" and not late_is_ours:
            raise problem
        if problem.kind == "refused":
            # Asking again does not help.
            raise ContentError(f"the IPFS daemon {self.address} refused {what}: {problem.reason}.")
        if problem.kind == "wrong" and what.startswith("block "):
            raise ContentError(f"the IPFS daemon {self.address} {problem.reason} ({what}).")
        if problem.kind in ("wrong", "status"):
            raise self._no_daemon(problem.reason)
        raise LedgerUnreachable(f"the IPFS daemon {self.address} {problem.reason} ({what}).", START)

    def _not_found(self, what: str, times: str) -> ContentError:
        """For a question whose time was up: the daemon may wait for others.

        Raises:
            LedgerUnreachable: it is silent itself.
        """
        self.version(Deadline(self.patience.connect + 2))
        return ContentError(
            f"the IPFS daemon {self.address} did not find {what} in time {times}.", "Is a node online that has it?"
        )

    def _no_daemon(self, reason: str) -> LedgerError:
        return LedgerUnreachable(
            f"what answers at {self.address} is no IPFS daemon's RPC interface, or is not well: it {reason}.", START
        )
