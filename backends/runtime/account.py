"""The account at IBM's service, and the connection to it.

An account is that of the environment (QISKIT_IBM_TOKEN, _CHANNEL, _INSTANCE, _URL), else the one that `qrun login` or
qiskit-ibm-runtime has saved. The token is handed to QiskitRuntimeService and kept nowhere else; no message of an error
holds it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends.runtime.errors import ServiceError
from backends.runtime.explain import (
    LOGIN,
    account_available,
    account_file,
    explain,
    one_line,
    redact,
    saved_accounts,
    token_of_the_environment,
)

if TYPE_CHECKING:
    from qiskit_ibm_runtime import QiskitRuntimeService

__all__ = [
    "CHANNELS",
    "Allowance",
    "account_file",
    "allowance",
    "available",
    "connect",
    "disconnect",
    "open_service",
    "saved_accounts",
    "token_of_the_environment",
]

CHANNELS = ("ibm_quantum_platform", "ibm_cloud")
_VARIABLES = ("QISKIT_IBM_TOKEN", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_INSTANCE", "QISKIT_IBM_URL")
_connected: dict[tuple[str | None, ...], QiskitRuntimeService] = {}
"""The last connection, and of which account it is."""


@dataclass(frozen=True)
class Allowance:
    """What the plan gives, in QPU seconds; None for what the service does not say.

    Attributes:
        plan: Its name, as the service writes it ("open" ...).
        limit: Of the current period.
        consumed: Of it.
    """

    plan: str | None
    limit: float | None
    consumed: float | None

    @property
    def remaining(self) -> float | None:
        """What is left of the limit."""
        return None if self.limit is None else max(self.limit - (self.consumed or 0.0), 0.0)


def available() -> bool:
    """Whether there is an account to connect with. Asks no network, and makes no file."""
    return account_available()


def connect() -> QiskitRuntimeService:
    """The service, with the account of the environment or the saved one; connected once a process and account.

    A POST is never repeated on its own (`connection.Once`): a job or session whose answer was lost could be made twice.

    Raises:
        ServiceError: No account, a refused token, no such instance, or the service cannot be reached.
    """
    token = token_of_the_environment()
    channel, instance, url = (os.environ.get(name, "").strip() or None for name in _VARIABLES[1:])
    saved = account_file()
    if not account_available():
        raise ServiceError("no account at IBM Quantum is known here.", LOGIN)
    try:
        stamp = None if token else str(saved.stat().st_mtime_ns)
    except OSError:
        stamp = None
    key = (token, channel, instance, url, stamp, str(saved))
    if key not in _connected:
        service = open_service(token, channel=channel, instance=instance, url=url)
        _connected.clear()
        _connected[key] = service
    return _connected[key]


def disconnect() -> None:
    """Forget the connection of `connect`: the next one is made anew."""
    _connected.clear()


def open_service(
    token: str | None, *, channel: str | None = None, instance: str | None = None, url: str | None = None
) -> QiskitRuntimeService:
    """A new connection, not kept.

    Args:
        token: None for the saved account, whose `url` it then is.
        channel: One of `CHANNELS`.
        instance: Name or CRN; None lets the service choose.
        url: Of the service; one that is not IBM's is asked as it is, and needs the instance's CRN.

    Raises:
        ServiceError: As `connect`.
    """
    if channel is not None and channel not in CHANNELS:
        raise ServiceError(f"unknown channel {channel!r}.", f"Known: {', '.join(CHANNELS)}.")
    shown = one_line(redact(url or "", (token or "",)))
    if token is not None and url is not None and not is_ibm(url) and not instance:
        raise ServiceError(f"{shown} is not IBM's: its instances cannot be looked up.", "Set QISKIT_IBM_INSTANCE.")
    if url is not None and not _private(url):
        raise ServiceError(f"{shown} would send the token in the clear.", "Give an https URL.")
    quieten()
    try:
        from backends.runtime.connection import Service

        if token is None:
            service = Service(
                filename=str(account_file()), channel=channel, instance=instance, url_resolver=resolve_url
            )
        else:
            service = Service(
                channel=channel or CHANNELS[0], token=token, instance=instance, url=url, url_resolver=resolve_url
            )
        service.check()
    except Exception as error:
        raise explain(error, "IBM's service cannot be used", secrets=(token or "",)) from None
    return service


def allowance(service: QiskitRuntimeService) -> Allowance:
    """What the active instance's plan gives, and what is used of it.

    Raises:
        ServiceError: The service does not answer.
    """
    try:
        usage = service.usage()
        active = service.active_instance()
        plans = [str(entry.get("plan") or "") for entry in service.instances() if entry.get("crn") == active]
    except Exception as error:
        raise explain(error, "the service does not tell its usage") from None
    limit = usage.get("usage_limit_seconds") or usage.get("usage_allocation_seconds")
    return Allowance(
        plan=next((one_line(plan) for plan in plans if plan and plan not in ("plan", "unknown")), None),
        limit=_seconds(limit),
        consumed=_seconds(usage.get("usage_consumed_seconds")),
    )


def is_ibm(url: str) -> bool:
    """Whether a URL is one of IBM's cloud."""
    from urllib.parse import urlparse

    host = (urlparse(url).hostname or "").lower()
    return host == "cloud.ibm.com" or host.endswith(".cloud.ibm.com")


def _private(url: str) -> bool:
    """Whether nobody on the way reads what is sent: over TLS, or to this machine."""
    from ipaddress import ip_address
    from urllib.parse import urlparse

    parsed = urlparse(url)
    try:
        here = ip_address(parsed.hostname or "").is_loopback
    except ValueError:
        here = parsed.hostname == "localhost"
    return parsed.scheme == "https" or (parsed.scheme == "http" and here)


def resolve_url(url: str, instance: str, private_endpoint: bool | None = False, channel: str = "") -> str:
    """The address of the Runtime's interface: IBM's by the region of the instance, any other as it is given."""
    if not is_ibm(url):
        return url.rstrip("/")
    from qiskit_ibm_runtime.api.utils import default_runtime_url_resolver

    return str(default_runtime_url_resolver(url, instance, bool(private_endpoint), channel))


def quieten() -> None:
    """Keep the Runtime's chat (which instance, which plan, which account) from the terminal, and from being slow.

    QISKIT_IBM_RUNTIME_LOG_LEVEL brings it back. Where USAGE_DATA_OPT_OUT is not set it becomes "True": else the client
    tells IBM with every request by which packages it is called, and reads the source of its whole stack to find out,
    50 to 120 ms in which a session is charged. (What it says of versions is settled when it is imported.)
    """
    import logging
    import warnings

    os.environ.setdefault("USAGE_DATA_OPT_OUT", "True")

    import qiskit_ibm_runtime  # noqa: F401  # sets up its logger

    # Where no access token is to be had, the request that follows fails, and says so.
    warnings.filterwarnings("ignore", message="Unable to retrieve IBM Cloud access token")
    if not os.environ.get("QISKIT_IBM_RUNTIME_LOG_LEVEL"):
        logging.getLogger("qiskit_ibm_runtime").setLevel(logging.CRITICAL)


def _seconds(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if good else None
