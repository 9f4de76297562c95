"""The stand-in as a whole: started, asked, set to fail, stopped."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self

from backends.runtime.standin.accounts import Accounts
from backends.runtime.standin.control import control
from backends.runtime.standin.devices import device
from backends.runtime.standin.faults import Faults
from backends.runtime.standin.queue import Queue
from backends.runtime.standin.record import Accepted, Entry, Record, jobs_of
from backends.runtime.standin.routes import Routes
from backends.runtime.standin.server import Server
from backends.runtime.standin.settings import Settings
from circuits.errors import QrunError, UsageError


class StandIn:
    """A running stand-in for IBM's Runtime service; see the package's docstring.

    Args:
        settings: How it behaves; may be changed while it serves.
        port: 0 for any that is free.

    Attributes:
        settings: As given.
        faults: What goes wrong on purpose.

    Raises:
        UsageError: An unknown device, or no device at all.
        QrunError: The port is taken.
    """

    def __init__(self, settings: Settings | None = None, *, port: int = 0) -> None:
        self.settings = settings or Settings()
        if not self.settings.devices:
            raise UsageError("a stand-in needs a device.", "Name a fake one, such as fake_kyiv.")
        made = [device(name) for name in self.settings.devices]
        self._queue = Queue(self.settings, {each.name: each for each in made})
        self.faults, self._record = Faults(), Record()
        routes = Routes(self._queue, Accounts(self.settings))
        try:
            self._server = Server(
                port,
                routes.answer,
                lambda call: control(call, self._queue, self.faults, self._record),
                self.faults,
                self._record,
            )
        except OSError as error:
            raise QrunError(f"cannot serve on port {port}: {error.strerror or error}.", "Take another one.") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="stand-in", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """The environment variables that lead QiskitRuntimeService (and `qrun`) here."""
        none = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
        direct = ",".join(dict.fromkeys([*filter(None, none.split(",")), "127.0.0.1"]))
        return {
            "QISKIT_IBM_TOKEN": self.settings.token,
            "QISKIT_IBM_INSTANCE": self.settings.instance,
            "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
            "QISKIT_IBM_URL": self.url,
            "IAM_URL": self.url,
            "GLOBAL_SEARCH_URL": self.url,
            "GLOBAL_CATALOG_URL": f"{self.url}/catalog",
            "NO_PROXY": direct,
            "no_proxy": direct,
        }

    def start(self) -> Self:
        """Begin to serve."""
        # Loaded first in the thread that runs a job, Aer crashes the process.
        import qiskit_aer  # noqa: F401

        self._queue.start()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Serve no more; a job that runs is waited for."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._queue.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def accepted(self) -> list[Accepted]:
        """Every job that was accepted, oldest first."""
        return jobs_of(self._queue)

    def requests(self) -> list[Entry]:
        """Every request that was answered or dropped, in order."""
        return self._record.entries()

    def sessions(self) -> dict[str, str]:
        """Sessions and batches by id, and whether they are open, active, inactive or closed."""
        import time

        with self._queue.changed:
            return {name: session.state(time.time()) for name, session in self._queue.sessions.items()}

    def spent(self) -> float:
        """QPU seconds that the instance is charged."""
        return self._queue.spent()

    def hold(self) -> None:
        """Let jobs wait in the queue until `release`."""
        self._queue.hold(True)

    def release(self) -> None:
        """Let jobs run again."""
        self._queue.hold(False)
