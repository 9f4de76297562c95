"""Answers requests from kept results: whoever verifies a run repeats its arithmetic, not its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from backends.protocol import Request, Result
from backends.runtime.pubs import Part, check, halves, parts
from backends.runtime.results import decode, join
from backends.runtime.types import JobLimits, RuntimeOptions
from backends.target import Target
from circuits.errors import QrunError


class ReplayExecutor:
    """Gives what the engine "runtime" gave, from the results that were kept, and never sends anything.

    Args:
        target: As the run's.
        options: As the run's.
        results: The kept bytes of a job's result by the digest of its request; None where there are none.
    """

    name = "runtime"
    differentiable = False

    def __init__(self, target: Target, options: RuntimeOptions, results: Callable[[str], bytes | None]) -> None:
        self.target, self.options, self._results = target, options, results
        self.shots = options.shots
        self._local = target.kind != "hardware"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        """What these requests gave.

        Raises:
            UsageError: As the engine.
            QrunError: A result is missing, or is none of its request.
        """
        started = time.perf_counter()
        check(requests, self.options)
        whole = parts(requests, self.target, self.options, seed, local=self._local, limits=JobLimits())
        kept = [found for part in whole for found in self._find(part)]
        decoded = [decode(part, raw, local=self._local) for part, raw in kept]
        metadata = {
            "engine": self.name,
            "backend": self.target.name,
            "shots": self.shots,
            "replayed": True,
            "qpu_seconds": 0.0,
            "seconds": time.perf_counter() - started,
        }
        answers = join(requests, [part for part, _ in kept], decoded)
        return [Result(values, errors, dict(metadata)) for values, errors in answers]

    def _find(self, part: Part) -> list[tuple[Part, bytes]]:
        """The kept result of a job, or of the jobs that it was split into: the service's limits are not known here."""
        raw = self._results(part.digest)
        if raw is not None:
            return [(part, raw)]
        two = halves(part, self.target, local=self._local)
        if two is None:
            raise QrunError(
                f"no result is kept of the request {part.digest[:16]} to {self.target.name}.",
                "It is not what the run asked for, or its results were left out.",
            )
        try:
            return [found for half in two for found in self._find(half)]
        except QrunError:
            raise QrunError(
                f"no result is kept of the request {part.digest[:16]} to {self.target.name}.",
                "It is not what the run asked for, or its results were left out.",
            ) from None
