"""Where a run happens: folders, chain, store. Not part of what a run is, so not part of its config or digest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import UsageError
from contracts.chain import redact
from contracts.errors import LedgerError

MOST_CONFIRMATIONS = 1000


def is_url(chain: str) -> bool:
    """Whether a chain is named by the URL of a JSON-RPC node."""
    return chain.lower().startswith(("http://", "https://"))


def check_chain(chain: str | None) -> None:
    """Refuse what is no URL of a JSON-RPC node.

    Raises:
        UsageError: with an example.
    """
    if chain is not None and not is_url(chain):
        # Not shown: what has no scheme may still hold a password.
        raise UsageError("--chain takes an http(s) URL.", "For example --chain http://127.0.0.1:8545")


def check_ipfs(address: str | None) -> None:
    """Refuse what is no address of an IPFS daemon.

    Raises:
        UsageError: with an example.
    """
    if address is not None and not address.lower().startswith(("http://", "https://", "/")):
        raise UsageError("--ipfs takes a URL or a multiaddress.", "For example --ipfs http://127.0.0.1:5001")


def check_gateways(gateways: Sequence[str], ipfs: str | None) -> None:
    """Refuse addresses that are of no IPFS gateway, and gateways without a daemon.

    Raises:
        UsageError: what to give instead.
    """
    if not gateways:
        return
    if ipfs is None:
        raise UsageError("--gateway is asked for what the IPFS daemon has not.", "Add --ipfs URL.")
    from contracts.gateway import Gateway

    for gateway in gateways:
        try:
            Gateway(gateway)
        except LedgerError as error:
            raise UsageError(f"--gateway: {error.message}", error.hint) from None


def check_confirmations(confirmations: int) -> None:
    """Refuse a number of confirmations that is out of range.

    Raises:
        UsageError: it is.
    """
    if not 1 <= confirmations <= MOST_CONFIRMATIONS:
        raise UsageError(f"--confirmations {confirmations}: they are 1 (mined) to {MOST_CONFIRMATIONS}.")


@dataclass(frozen=True)
class Places:
    """Where data, chain and store are.

    Attributes:
        data: Folder of the data set's files, None to look for them.
        chain: URL of a JSON-RPC node, None for the embedded chain in the run's folder.
        ipfs: Address of an IPFS daemon, None for the content store in the run's folder.
    """

    data: Path | None = None
    chain: str | None = None
    ipfs: str | None = None

    def __post_init__(self) -> None:
        check_chain(self.chain)
        check_ipfs(self.ipfs)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the run's folder: a URL that holds a key is kept without it."""
        return {
            "data": None if self.data is None else str(self.data.absolute()),
            "chain": None if self.chain is None else redact(self.chain),
            "ipfs": None if self.ipfs is None else redact(self.ipfs),
        }

    @classmethod
    def recall(cls, saved: dict[str, Any], now: Places) -> Places:
        """The places of a run that goes on: what is given now wins over what was kept.

        Raises:
            UsageError: the kept URL had a key, which is not kept, and none is given.
        """
        out: dict[str, Any] = {}
        for name in ("chain", "ipfs"):
            given, kept = getattr(now, name), saved.get(name)
            if given is None and kept is not None and "***" in kept:
                raise UsageError(
                    f"the run's --{name} address {kept} held a key, which is not kept.", f"Give --{name} again."
                )
            out[name] = given if given is not None else kept
        data = now.data if now.data is not None else (Path(saved["data"]) if saved.get("data") else None)
        return cls(data=data, **out)
