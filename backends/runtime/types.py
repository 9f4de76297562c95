"""What a job is run with: options that define its result, and how and at which cost the service may be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

Mode = Literal["auto", "session", "batch", "job"]
MODES: tuple[Mode, ...] = ("auto", "session", "batch", "job")
Tell = Callable[[str, str], None]
"""Told (title, text) of what the user must know: which mode was taken, what the local mode ignores ..."""


def silent(title: str, text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class RuntimeOptions:
    """What defines the result of a job, beside circuit and parameters.

    Attributes:
        shots: A circuit.
        dynamical_decoupling: "off" or the sequence: "XX", "XpXm", "XY4".
        twirling: "off", "gates" (two-qubit gates), "measure", or "all" (both).
        resilience_level: None: counts from the Sampler, nothing mitigated. 0, 1, 2: the Estimator at that level.
    """

    shots: int = 1024
    dynamical_decoupling: Literal["off", "XX", "XpXm", "XY4"] = "off"
    twirling: Literal["off", "gates", "measure", "all"] = "off"
    resilience_level: int | None = None

    def in_force(self) -> RuntimeOptions:
        """What the Runtime makes of them: its resilience levels twirl by themselves, whatever was asked for.

        Levels 1 and 2 mitigate readout, for which it is twirled; level 2 twirls gates too, unless "measure" says not
        to (qiskit-ibm-runtime 0.51, executor_estimator/finalize_options.py).
        """
        level = self.resilience_level or 0
        if level == 0:
            return self
        gates = self.twirling in ("gates", "all") or (level == 2 and self.twirling == "off")
        return replace(self, twirling="all" if gates else "measure")


@dataclass(frozen=True)
class Access:
    """How the service may be asked. Nothing here changes a result, so nothing of it is part of a run's config.

    Attributes:
        mode: "session", "batch" or "job"; "auto" takes the first of them that the plan allows.
        max_qpu_seconds: The run stops before its jobs could take more; None: no bound but the plan's.
        session_seconds: Longest life of a session or batch (`max_time`), seconds of wall-clock time.
        patience: Seconds to look for a job of which it is unclear whether the service has it.
        resubmit: Send anew what an earlier attempt left unclear and the service still does not show, and what failed.
        detach: Leave (`Detached`) once a job is sent, instead of waiting for it.
    """

    mode: Mode = "auto"
    max_qpu_seconds: float | None = None
    session_seconds: int = 7200
    patience: float = 120.0
    resubmit: bool = False
    detach: bool = False


@dataclass(frozen=True)
class JobLimits:
    """What the service takes in one job: more is split.

    Attributes:
        circuits: Parameter sets in all PUBs.
        executions: Parameter sets times shots.
    """

    circuits: int = 10_000
    executions: int = 10_000_000


@dataclass(frozen=True)
class RuntimeContext:
    """All that the runtime engine is handed by the layer above it.

    Attributes:
        options: What defines results.
        access: How the service may be asked.
        run: Name of the run, for the jobs' tags.
        tell: Told of what the user must know.
    """

    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    access: Access = field(default_factory=Access)
    run: str = ""
    tell: Tell = silent
