"""The content store beside an IPFS daemon: what is put goes to both, what is missing here is asked of the daemon.

Where the daemon is away, what was put waits in an outbox beside the blocks until it is back; what is missing is asked
of gateways too, where any are given.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from contracts.bounded_http import Deadline, Patience
from contracts.cid import Cid, cid_of, parse_cid
from contracts.dag import broken_files, read_file
from contracts.errors import ContentError, LedgerError, LedgerUnreachable
from contracts.gateway import MAX_FILE, Gateway
from contracts.ipfs_daemon import Daemon, to_multiaddr
from contracts.outbox import Outbox
from contracts.store import ANY_SIZE, BlockStore

__all__ = ["Gateway", "IpfsStore", "Patience", "to_multiaddr"]

FIRST_REST = 1.0
"""Seconds in which a daemon that was away is not asked again, where that is allowed; doubled each time."""
MAX_REST = 30.0


@dataclass
class _Fetch:
    """One file that is being fetched: until when, and whom to ask, the most promising first."""

    root: Cid
    max_bytes: int
    deadline: Deadline
    sources: list[Daemon | Gateway] = field(default_factory=list)


class IpfsStore:
    """A BlockStore, an IPFS daemon, and gateways to read from.

    Files are put into both and pinned on the daemon, whose CID must be the one computed here. They are read from the
    folder first, then block by block from the daemon, then from the gateways in their order; nothing that any of them
    sends is believed before it is hashed, and every fetch ends.

    Args:
        address: The daemon's: `http://host:port`, or a multiaddr.
        local: The folder.
        gateways: Addresses of gateways, `https://host` or `http://host:port`.
        patience: How long servers are waited for.
        away_ok: Whether `put` succeeds while the daemon is away, and the file waits in the outbox. Else that is an
            error, though the file is kept here and waits all the same.

    Raises:
        LedgerError: an address is none.
        LedgerUnreachable: the daemon does not answer, and that is not `away_ok`.
    """

    kind = "ipfs"

    def __init__(
        self,
        address: str,
        local: BlockStore,
        *,
        gateways: Sequence[str] = (),
        patience: Patience | None = None,
        away_ok: bool = False,
    ) -> None:
        self.patience = patience or Patience()
        self.daemon = Daemon(address, self.patience)
        self.gateways = tuple(Gateway(gateway, self.patience) for gateway in gateways)
        self._local = local
        self._outbox = Outbox(local.folder / "outbox")
        self._away_ok = away_ok
        self._rest = FIRST_REST
        self._rests_until = float("-inf")
        self.version: str | None = None
        try:
            self.version = self.daemon.version()
        except LedgerUnreachable:
            if not away_ok:
                raise
            self._let_rest()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The CIDs of files that are kept here and wait for the daemon, the oldest first."""
        return tuple(cid for cid, whole in self._outbox.waiting().items() if whole)

    def put(self, data: bytes) -> str:
        """Keep a file here and on the daemon, pinned, after all that waits; its CID.

        Where the daemon is away the file waits too.

        Raises:
            ContentError: the daemon computed another CID, or refused the file.
            LedgerUnreachable: it does not answer, and that is not `away_ok`.
        """
        own = str(cid_of(data))
        self._outbox.begin(own)
        self._local.put(data)
        self._outbox.add(own)
        self._push_if_there(own)
        return own

    def get(self, cid: str, *, max_bytes: int) -> bytes:
        """A file, from here or else from daemon or gateways, after all that waits was pushed; see ContentStore.

        Raises:
            ContentError: as there; or it does not come within `patience.file` seconds, from a daemon that answers.
            LedgerUnreachable: the daemon does not answer, and no gateway has the file.
        """
        root = parse_cid(cid)
        self._push_if_there()
        fetch = self._fetch(root, max_bytes)
        return read_file(root, lambda wanted: self._block(wanted, fetch), max_bytes=max_bytes)

    def has(self, cid: str) -> bool:
        """Whether the whole file is here or can be fetched, undamaged.

        Raises:
            LedgerUnreachable: it is not here, and the daemon cannot be asked.
        """
        try:
            root = parse_cid(cid)
            fetch = self._fetch(root, MAX_FILE)
            get_block = lambda wanted: self._block(wanted, fetch)  # noqa: E731
            return not broken_files([root], get_block, max_bytes=ANY_SIZE, most=2 * ANY_SIZE)
        except ContentError:
            return False

    def push(self) -> int:
        """Give the daemon all that waits, and have it pinned; how many files that were.

        Safe to be killed and to be repeated: a file waits until the daemon is seen to hold its pin.

        Raises:
            LedgerUnreachable: the daemon does not answer.
            ContentError: files cannot be pushed (the first one's reason); the others were.
        """
        pushed, refused = self._push()
        if refused:
            cid, reason = next(iter(refused.items()))
            more = f" ({len(refused)} files in all)" if len(refused) > 1 else ""
            raise ContentError(f"file {cid} is not on the daemon{more}: {reason.message}", reason.hint)
        return pushed

    def pin(self, cid: str) -> None:
        """Have the daemon keep somebody's file with all its blocks; see `Daemon.pin`."""
        self.daemon.pin(cid)

    def close(self) -> None:
        """Close the connections."""
        self.daemon.close()

    def get_block(self, cid: Cid) -> bytes:
        """One block, from here or else from daemon or gateways, hashed; what came is kept here."""
        return self._block(cid, self._fetch(cid, MAX_FILE))

    # -- out ----------------------------------------------------------------------------------------------------------

    def _push(self) -> tuple[int, dict[str, LedgerError]]:
        pushed = 0
        refused: dict[str, LedgerError] = {}
        for cid, whole in self._outbox.waiting().items():
            try:
                data = read_file(parse_cid(cid), self._local.get_block, max_bytes=ANY_SIZE)
            except ContentError as error:
                # Not whole when it was marked: whoever put it was killed before it was here, and nothing is missing.
                if whole:
                    refused[cid] = ContentError(error.message, "Put the file again, from whoever has it.")
                continue
            try:
                self.daemon.add(data)
            except ContentError as error:
                refused[cid] = error
                continue
            self._outbox.remove(cid)
            pushed += 1
        return pushed, refused

    def _push_if_there(self, own: str | None = None) -> None:
        """Push what waits. Trouble with another file than `own` is told by `push()` alone: it must not stop all."""
        if not self._outbox.waiting() or self._rests():
            return
        try:
            _, refused = self._push()
        except LedgerUnreachable:
            if not self._away_ok:
                raise
            self._let_rest()
            return
        self._rest = FIRST_REST
        if own in refused:
            raise refused[own]

    def _rests(self) -> bool:
        return self._away_ok and time.monotonic() < self._rests_until

    def _let_rest(self) -> None:
        self._rests_until = time.monotonic() + self._rest
        self._rest = min(2 * self._rest, MAX_REST)

    # -- in -----------------------------------------------------------------------------------------------------------

    def _fetch(self, root: Cid, max_bytes: int) -> _Fetch:
        return _Fetch(root, max_bytes, Deadline(self.patience.file), [self.daemon, *self.gateways])

    def _block(self, cid: Cid, fetch: _Fetch) -> bytes:
        try:
            block = self._local.get_block(cid)
            if cid.matches(block):
                return block
        except ContentError:
            pass
        failed: list[tuple[Daemon | Gateway, LedgerError]] = []
        for source in list(fetch.sources):
            try:
                block = self._ask(source, cid, fetch)
            except (ContentError, LedgerUnreachable) as error:
                failed.append((source, error))
                continue
            # Who failed is asked last for the rest of this file: it would be waited for with every block.
            behind = len(failed)
            fetch.sources[:] = fetch.sources[behind:] + fetch.sources[:behind]
            return block
        raise self._nowhere(cid, failed)

    def _ask(self, source: Daemon | Gateway, cid: Cid, fetch: _Fetch) -> bytes:
        """A block from one source, kept here."""
        if isinstance(source, Gateway):
            return self._from_gateway(source, cid, fetch)
        if self._rests():
            raise LedgerUnreachable(f"the IPFS daemon {source.address} did not answer a moment ago.")
        try:
            block = source.block(cid, fetch.deadline)
        except LedgerUnreachable:
            if self._away_ok:
                self._let_rest()
            raise
        self._local.put_block(cid, block)
        return block

    def _from_gateway(self, gateway: Gateway, cid: Cid, fetch: _Fetch) -> bytes:
        try:
            blocks = gateway.fetch(cid, max_bytes=fetch.max_bytes, deadline=fetch.deadline)
        except ContentError:
            if cid.v1 == fetch.root.v1:
                raise
            # A gateway of whole files cannot name every node inside one.
            blocks = gateway.fetch(fetch.root, max_bytes=fetch.max_bytes, deadline=fetch.deadline)
            if all(cid.v1 != found for found, _ in blocks):
                raise
        wanted = b""
        for found, block in blocks:
            self._local.put_block(found, block)
            if found == cid.v1:
                wanted = block
        return wanted

    def _nowhere(self, cid: Cid, failed: list[tuple[Daemon | Gateway, LedgerError]]) -> LedgerError:
        """What each of them said. The daemon's word decides whether the block is missing or nobody could be asked."""
        if len(failed) == 1:
            return failed[0][1]
        decides = next(error for source, error in failed if source is self.daemon)
        said = "; ".join(error.message.rstrip(".") for _, error in failed)
        return type(decides)(f"block {cid} could be had nowhere: {said}.", decides.hint)
