"""Where a run happens: folders, chain, store. Not part of what a run is, so not part of its config or digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import UsageError
from contracts.chain import redact
from contracts.errors import LedgerError
from contracts.outgoing import SendPolicy

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


def check_gateways(gateways: Sequence[str]) -> None:
    """Refuse what is no address of an IPFS gateway.

    Raises:
        UsageError: with an example.
    """
    if not gateways:
        return
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


def check_together(*, ipfs: str | None, gateways: Sequence[str], of_a_node: bool, confirmations: int) -> None:
    """Refuse what would do nothing: gateways without a daemon, confirmations of a chain in a file.

    Raises:
        UsageError: what to add, or to leave out.
    """
    if gateways and ipfs is None:
        raise UsageError("--gateway is asked for what the IPFS daemon has not.", "Add --ipfs URL.")
    if confirmations > 1 and not of_a_node:
        raise UsageError("--confirmations is of a chain behind a URL.", "Add --chain URL, or leave it out.")


@dataclass(frozen=True)
class Places:
    """Where data, chain and store are.

    Attributes:
        data: Folder of the data set's files, None to look for them.
        chain: URL of a JSON-RPC node, None for the embedded chain in the run's folder.
        ipfs: Address of an IPFS daemon, None for the content store in the run's folder.
        gateways: Addresses of IPFS gateways, asked for what the daemon has not.
        confirmations: Blocks that a transaction must be in or under; None: one.
    """

    data: Path | None = None
    chain: str | None = None
    ipfs: str | None = None
    gateways: tuple[str, ...] = ()
    confirmations: int | None = None

    def __post_init__(self) -> None:
        check_chain(self.chain)
        check_ipfs(self.ipfs)
        check_gateways(self.gateways)
        check_confirmations(1 if self.confirmations is None else self.confirmations)

    @property
    def policy(self) -> SendPolicy:
        """How a chain behind a URL is waited for."""
        return SendPolicy(confirmations=self.confirmations or 1)

    def check(self) -> None:
        """Refuse what does not go together, once all is known.

        Raises:
            UsageError: what to add, or to leave out.
        """
        check_together(
            ipfs=self.ipfs,
            gateways=self.gateways,
            of_a_node=self.chain is not None,
            confirmations=self.confirmations or 1,
        )

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the run's folder: a URL that holds a key is kept without it; what nobody gave is left out of
        what came later."""
        kept: dict[str, Any] = {
            "data": None if self.data is None else str(self.data.absolute()),
            "chain": None if self.chain is None else redact(self.chain),
            "ipfs": None if self.ipfs is None else redact(self.ipfs),
        }
        if self.gateways:
            kept["gateways"] = list(self.gateways)
        if self.confirmations is not None:
            kept["confirmations"] = self.confirmations
        return kept

    @classmethod
    def recall(cls, saved: Mapping[str, Any], now: Places) -> Places:
        """The places of a run that goes on: what is given now wins over what was kept.

        Raises:
            UsageError: the kept URL had a key, which is not kept, and none is given; or they do not go together.
        """
        out: dict[str, Any] = {}
        for name in ("chain", "ipfs"):
            given, kept = getattr(now, name), saved.get(name)
            if given is None and kept is not None and "***" in kept:
                raise UsageError(
                    f"the run's --{name} address {kept} held a key, which is not kept.", f"Give --{name} again."
                )
            out[name] = given if given is not None else kept
        out["gateways"] = now.gateways or tuple(saved.get("gateways", ()))
        out["confirmations"] = now.confirmations or saved.get("confirmations")
        out["data"] = now.data if now.data is not None else (Path(saved["data"]) if saved.get("data") else None)
        found = cls(**out)
        found.check()
        return found


def is_sound(saved: object) -> bool:
    """Whether what a run's folder has of its places has the types that `Places.to_json` writes."""
    if not isinstance(saved, dict):
        return False
    gateways, confirmations = saved.get("gateways", []), saved.get("confirmations", 1)
    texts = [value for name, value in saved.items() if name not in ("gateways", "confirmations")]
    return (
        all(value is None or isinstance(value, str) for value in texts)
        and isinstance(gateways, list)
        and all(isinstance(gateway, str) for gateway in gateways)
        and type(confirmations) is int
    )
