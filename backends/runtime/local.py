"""The Runtime's local testing mode: its own client, options and primitives, with jobs simulated on the cut-down device.

What it ignores is said: `IGNORED`. Its jobs live as long as the process and cannot be asked for again.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from backends.runtime.client import Kind, Place, SessionStatus, Status
from backends.runtime.primitives import run_primitive
from backends.runtime.pubs import Part
from backends.runtime.types import RuntimeOptions
from backends.target import Target
from circuits.errors import QrunError

IGNORED = ("max_time of a session", "max_execution_time", "job tags")
"""What the local mode takes and leaves aside."""

_DECOUPLING = (
    "what dynamical_decoupling is for: no phase drifts while qubits wait, and only with it they decay there, so that "
    "it only costs"
)
"""Its delays stand in the circuit, where Aer's noise model relaxes them; without it nobody tells Aer who waits."""

_DENSITY_MATRIX_WIRES = 10
"""Up to here one density matrix a circuit is evolved and sampled, whatever the shots: what Aer picks by itself for many
shots."""

_FUSION_WIRES = 1
"""From here on Aer joins gates and their noise before it applies them; by itself it does from 7 on.

96 circuits of 1024 shots on 6 qubits of fake_kyiv, one thread: 0.56 s, and 1.3 s without. The counts are the same.
"""

_SIMULATORS = 16


def ignored(options: RuntimeOptions) -> list[str]:
    """What the local mode ignores of what is in force."""
    if options.dynamical_decoupling == "off":
        return list(IGNORED)
    return [*IGNORED, _DECOUPLING]


class LocalClient:
    """Runs jobs in this process.

    Args:
        target: A device; every job runs on `target.cut` of the qubits in use.
    """

    local = True

    def __init__(self, target: Target) -> None:
        self._target = target
        self._backends: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._results: dict[str, bytes] = {}

    def submit(self, part: Part, place: Place) -> str:
        """Run a job to its end.

        Raises:
            QrunError: The simulator cannot run it.
        """
        from qiskit.exceptions import QiskitError
        from qiskit_ibm_runtime import Batch, Session

        physical = part.pubs[0].circuit.physical_qubits
        backend = self._backend(physical)
        mode = {"session": Session, "batch": Batch}.get(place.kind, lambda backend: backend)(backend=backend)
        width, found = len(physical), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                for number, pub in enumerate(part.pubs):
                    # The local mode would seed every PUB alike, and equal circuits would give equal counts.
                    alone = replace(part, pubs=(pub,))
                    job = run_primitive(alone, mode, width, lambda pub: range(width), seed=_seed(part, number))
                    found += list(job.result())
            except (QiskitError, ValueError) as error:
                raise QrunError(f"the Runtime's local testing mode cannot run this job: {error}") from None
        job_id = str(uuid.uuid4())
        self._results[job_id] = encode(found)
        return job_id

    def _backend(self, physical: tuple[int, ...]) -> Any:
        from qiskit_aer import AerSimulator

        if physical not in self._backends:
            cut = self._target.cut(physical)
            small = len(physical) <= _DENSITY_MATRIX_WIRES
            # Each circuit is seeded by itself, so that running several at once does not change what they give.
            options: dict[str, Any] = {"max_parallel_experiments": 0}
            options |= {"method": "density_matrix", "fusion_threshold": _FUSION_WIRES} if small else {}
            self._backends[physical] = AerSimulator.from_backend(cut, **options)
            if len(self._backends) > _SIMULATORS:
                self._backends.popitem(last=False)
        return self._backends[physical]

    def find(self, tag: str) -> list[str]:
        """Nothing: local jobs have no tags."""
        return []

    def status(self, job_id: str) -> Status:
        """Done, if it is one of this process."""
        return Status("done") if job_id in self._results else Status("failed", "it ran in a process that has ended")

    def result(self, job_id: str) -> bytes:
        """The result of a job, once."""
        return self._results.pop(job_id)

    def usage(self, job_id: str) -> float | None:
        """Nothing is paid."""
        return 0.0

    def estimate(self, job_id: str) -> float | None:
        """Nothing is expected."""
        return None

    def cancel(self, job_id: str) -> bool:
        """A job has always ended."""
        return False

    def open_session(self, kind: Kind, backend: str, max_time: int) -> str | None:
        """Local sessions have no id."""
        return None

    def session(self, session_id: str) -> SessionStatus:
        """There is none of the service's here."""
        return SessionStatus(accepting=False)

    def close_session(self, session_id: str) -> None:
        """Nothing to close."""

    def plan(self) -> str | None:
        """None: every mode is allowed."""
        return None


def _seed(part: Part, number: int) -> int | None:
    """Of the simulator for a PUB: another for every PUB of every request, the same for the same request."""
    if part.seed is None:
        return None
    return int.from_bytes(hashlib.sha256(f"{part.digest} {number}".encode()).digest()[:4], "little")


def encode(result: Iterable[Any]) -> bytes:
    """What all PUBs gave, in a PrimitiveResult as RuntimeEncoder writes it.

    Without metadata, which holds times: same seed, same bytes.
    """
    from qiskit.primitives.containers import DataBin, PrimitiveResult, PubResult
    from qiskit_ibm_runtime import RuntimeEncoder

    pubs = []
    for pub in result:
        names = [name for name in ("c", "evs", "stds") if name in pub.data]
        fields = {name: pub.data[name] for name in names}
        pubs.append(PubResult(DataBin(**fields, shape=pub.data.shape)))
    text = json.dumps(PrimitiveResult(pubs), cls=RuntimeEncoder, sort_keys=True, separators=(",", ":"))
    return text.encode()
