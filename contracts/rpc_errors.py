"""The one place where errors of web3, eth-tester, py-evm and HTTP become errors that a user can read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from contracts.errors import ContractRevert, LedgerError, LedgerUnreachable

_HEX = re.compile(r"0x(?:[0-9a-fA-F]{2}){4,}")
_LONG_SEGMENT = 12
"""Path segments of this length or more may be API keys."""
HIDDEN = "***"


def redact(url: str) -> str:
    """A URL without what may be secret: user and password, long path segments, query and fragment become ***.

    What has no scheme (a file, a multiaddr) is given back as it is.
    """
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        netloc = f"{HIDDEN}@{host}" if "@" in parts.netloc else host
    except ValueError:
        return f"{url.partition('://')[0]}://{HIDDEN}"
    path = "/".join(HIDDEN if len(segment) >= _LONG_SEGMENT else segment for segment in parts.path.split("/"))
    return urlunsplit((parts.scheme, netloc, path, HIDDEN if parts.query else "", HIDDEN if parts.fragment else ""))


def _find_hex(value: object) -> str | None:
    """The revert data, wherever a node put it: the longest hex text of at least four bytes."""
    if isinstance(value, Mapping):
        found = [_find_hex(v) for v in value.values()]
    elif isinstance(value, (list, tuple)):
        found = [_find_hex(v) for v in value]
    elif isinstance(value, str):
        found = list(_HEX.findall(value))
    else:
        return None
    return max((f for f in found if f), key=len, default=None)


def decode_revert(data: str, abi: Sequence[Mapping[str, Any]]) -> ContractRevert:
    """The custom error (or Panic, or Error(string)) that `data` holds, by the errors of `abi`."""
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError
    from eth_utils.crypto import keccak

    raw = bytes.fromhex(data.removeprefix("0x"))
    builtin = [
        {"type": "error", "name": "Error", "inputs": [{"name": "reason", "type": "string"}]},
        {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
    ]
    for entry in [*abi, *builtin]:
        if entry.get("type") != "error":
            continue
        types = [i["type"] for i in entry["inputs"]]
        if keccak(text=f"{entry['name']}({','.join(types)})")[:4] != raw[:4]:
            continue
        try:
            values = decode(types, raw[4:])
        except DecodingError:
            break
        return ContractRevert(entry["name"], {i["name"]: v for i, v in zip(entry["inputs"], values, strict=True)})
    return ContractRevert("UnknownError", {"data": data[:74]})


@contextmanager
def translated(where: str, abi: Sequence[Mapping[str, Any]] = ()) -> Iterator[None]:
    """Turn whatever chain libraries raise in the block into a LedgerError.

    Args:
        where: The chain's file or URL; only its redacted form is shown.
        abi: Whose custom errors may come.
    """
    try:
        yield
    except LedgerError:
        raise
    except Exception as error:
        raise _translate(error, where, abi) from None


def _translate(error: Exception, where: str, abi: Sequence[Mapping[str, Any]]) -> LedgerError:
    from eth_tester.exceptions import TransactionFailed
    from web3.exceptions import ContractLogicError, Web3RPCError

    if isinstance(error, (TransactionFailed, ContractLogicError)):
        data = _find_hex([getattr(error, "data", None), *error.args])
        return ContractRevert("Reverted", {}) if data is None else decode_revert(data, abi)
    shown = redact(where)
    unreachable = _unreachable(error, shown)
    if unreachable is not None:
        return unreachable
    text = str(getattr(error, "message", None) or error)
    if isinstance(error, Web3RPCError):
        response = error.rpc_response
        detail = response.get("error") if isinstance(response, Mapping) else None
        if isinstance(detail, Mapping):
            text = str(detail.get("message", text))
        text = text.replace(where, shown)
        if "insufficient funds" in text.lower():
            return LedgerError(
                f"an account has too little money for its transaction ({text[:200]}).",
                "Give a funded key in QRUN_CHAIN_KEY.",
            )
        return LedgerError(f"the node {shown} refused: {text[:300]}.")
    return LedgerError(f"the chain {shown} failed: {type(error).__name__}: {text.replace(where, shown)[:300]}.")


def _unreachable(error: Exception, shown: str) -> LedgerUnreachable | None:
    """What a failure of the way to the node looks like, or None where it is something else."""
    from json import JSONDecodeError

    import requests
    from web3.exceptions import BadResponseFormat

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        hint = {401: "Is the key right?", 403: "Is the key right?", 429: "Too many requests: try again later."}
        return LedgerUnreachable(
            f"the node {shown} answered with HTTP status {status}.",
            hint.get(status, "Is that the URL of a JSON-RPC node?"),
        )
    if isinstance(error, (JSONDecodeError, BadResponseFormat)):
        return LedgerUnreachable(f"what answers at {shown} is no JSON-RPC node.", "Mend the URL given with --chain.")
    if isinstance(error, (requests.RequestException, ConnectionError, TimeoutError)):
        return LedgerUnreachable(
            f"the node {shown} does not answer ({type(error).__name__}).",
            "Start it or mend the URL given with --chain, and try again.",
        )
    return None
