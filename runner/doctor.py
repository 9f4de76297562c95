"""`qrun doctor`: what is here, what is missing, and how to mend it."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from circuits.errors import QrunError
from contracts.errors import LedgerError
from runner.store import home
from runner.versions import PACKAGES, package_version

State = Literal["ok", "optional", "broken"]


@dataclass(frozen=True)
class Check:
    """One thing looked at: `state` is ok, optional (missing, and not needed by the defaults) or broken."""

    name: str
    state: State
    found: str
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def _packages() -> list[Check]:
    out = []
    for name in PACKAGES:
        version = package_version(name)
        if version is None:
            out.append(Check(name, "broken", "not installed", "Install qrun again: pip install --upgrade qrun"))
        else:
            out.append(Check(name, "ok", version))
    return out


def _data(folder: Path | None) -> Check:
    from experiments.datasets.fetch import load, locate

    found = locate(folder, False)
    missing = [name for name, path in found.items() if path is None]
    if missing and folder is not None:
        return Check("NSL-KDD", "broken", f"{folder} lacks {', '.join(missing)}", "Put the files there.")
    if missing:
        return Check(
            "NSL-KDD",
            "optional",
            f"not found: {', '.join(missing)}",
            "It is fetched on the first run; without a network a stand-in is used. Or put the files into a folder and "
            "name it with --data or QRUN_DATA.",
        )
    # As a run would: size, hash, every line, and no file under another's name.
    load(data=folder, full=False, offline=True, notify=lambda _: None)
    return Check("NSL-KDD", "ok", ", ".join(str(path) for path in found.values()))


def _runs() -> Check:
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check("run folder", "broken", f"{folder}: {error.strerror}", "Set QRUN_HOME to a folder you may write.")
    return Check("run folder", "ok", str(folder))


def _embedded_chain() -> Check:
    from contracts.chain import connect

    try:
        with tempfile.TemporaryDirectory() as folder, connect(Path(folder) / "chain.sqlite", []) as chain:
            return Check("embedded chain", "ok", f"chain id {chain.chain_id}")
    except (LedgerError, OSError) as error:
        return Check("embedded chain", "broken", str(error), "Install qrun again: web3[tester] is needed.")


def _node(url: str | None) -> Check:
    from contracts.chain import connect, redact

    if url is None:
        return Check("Ethereum node", "optional", "not asked for", "qrun doctor --chain URL looks for one.")
    try:
        with connect(url, []) as chain:
            return Check(
                "Ethereum node", "ok", f"{redact(url)}: chain id {chain.chain_id}, block {chain.head_number()}"
            )
    except LedgerError as error:
        return Check("Ethereum node", "broken", error.message, error.hint)


def _ipfs(address: str | None) -> Check:
    from contracts.store import open_store

    if address is None:
        return Check("IPFS daemon", "optional", "not asked for", "qrun doctor --ipfs URL looks for one.")
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(Path(folder), address)
            store.close()
    except LedgerError as error:
        return Check("IPFS daemon", "broken", error.message, error.hint)
    return Check("IPFS daemon", "ok", "answers")


def _token() -> Check:
    from backends.runtime.account import account_file, available, token_of_the_environment
    from runner.account import readable_by_others

    if token_of_the_environment() is not None:
        return Check("IBM Quantum token", "ok", "present, in QISKIT_IBM_TOKEN")
    file = account_file()
    if available():
        if readable_by_others(file):
            return Check("IBM Quantum token", "optional", f"in {file}, which others can read", f"chmod 600 {file}")
        return Check("IBM Quantum token", "ok", "present, in the saved account")
    if file.exists():
        return Check("IBM Quantum token", "optional", f"{file} holds no account", "Save one: qrun login")
    return Check(
        "IBM Quantum token",
        "optional",
        "not present",
        "Fake devices need none. For hardware: qrun login, or set QISKIT_IBM_TOKEN.",
    )


def _service(live: bool) -> Check:
    """Whether IBM's service answers; asked only where the user says so."""
    name = "IBM Quantum service"
    if not live:
        return Check(name, "optional", "not asked for", "qrun doctor --live asks it.")
    from backends.live import devices
    from backends.runtime.account import allowance, connect

    try:
        plan = allowance(connect())
        found = devices()
    except QrunError as error:
        return Check(name, "broken", error.message, error.hint)
    running = sum(device.operational for device in found)
    told = [f"answers; {running} of {len(found)} devices run jobs", f"plan {plan.plan or 'not told'}"]
    if plan.remaining is not None and plan.limit is not None:
        told.append(f"{plan.remaining:.0f} of {plan.limit:.0f} QPU seconds left")
    return Check(name, "ok", ", ".join(told))


def examine(
    *, chain: str | None = None, ipfs: str | None = None, data: Path | None = None, live: bool = False
) -> list[Check]:
    """All checks. Shows whether secrets are there, never what they are."""
    checks = _packages()
    try:
        checks.append(_data(data))
    except QrunError as error:
        checks.append(Check("NSL-KDD", "broken", error.message, error.hint))
    return [*checks, _runs(), _embedded_chain(), _node(chain), _ipfs(ipfs), _token(), _service(live)]
