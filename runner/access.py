"""How a run may ask the service: said on the command line, kept beside the run, and never part of its config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from backends.live import is_concrete
from backends.runtime.types import MODES, Access
from circuits.errors import UsageError
from runner.config import RunConfig

LONGEST_SESSION = 86_400
"""Seconds; longer ones the service does not open."""
MOST = 1e9
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_KEPT = ("mode", "max_qpu_seconds", "session_seconds", "patience")


@dataclass(frozen=True)
class Said:
    """What the user said about it now; None for what was not said.

    Attributes:
        mode: "auto", "session", "batch" or "job".
        max_qpu_seconds: Bound on QPU seconds.
        max_time: Longest life of a session: seconds, or text such as "90m", "2h".
        patience: Seconds to look for a job of which it is unclear whether the service has it.
        resubmit: Send anew what is unclear or has failed; holds for this attempt alone.
        detach: Send and leave; holds for this attempt alone.
    """

    mode: str | None = None
    max_qpu_seconds: float | None = None
    max_time: str | int | None = None
    patience: float | None = None
    resubmit: bool = False
    detach: bool = False

    def access(self, *kept: Mapping[str, Any] | None) -> Access:
        """What holds now: what is said, over what was kept (the later over the earlier), over the defaults.

        Raises:
            UsageError: a value that cannot be; names its option.
        """
        values: dict[str, Any] = {}
        for earlier in kept:
            values |= {k: v for k, v in (earlier or {}).items() if k in _KEPT}
        if self.mode is not None:
            if self.mode not in MODES:
                raise UsageError(f"--mode {self.mode}: unknown.", f"Known: {', '.join(MODES)}.")
            values["mode"] = self.mode
        if self.max_qpu_seconds is not None:
            values["max_qpu_seconds"] = _seconds("--max-qpu-seconds", self.max_qpu_seconds)
        if self.max_time is not None:
            values["session_seconds"] = _duration(self.max_time)
        if self.patience is not None:
            values["patience"] = _seconds("--patience", self.patience)
        return Access(**values, resubmit=self.resubmit, detach=self.detach)

    def fits(self, config: RunConfig) -> None:
        """Refuse what would do nothing in this run.

        Raises:
            UsageError: options of the Runtime, and the run has no part for it; or nothing outlives this process.
        """
        said = [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]
        if said and config.runtime is None:
            raise UsageError(
                f"--{said[0].replace('_', '-')} is about jobs of IBM's Runtime, and this run sends none.",
                "Take --engine runtime, or --run-on NAME.",
            )
        if self.detach and not on_hardware(config):
            raise UsageError(
                "the Runtime's local testing mode ends with this process: there is nothing to come back to.",
                "Detach from runs on hardware (--backend ibm_NAME), or let this one go on.",
            )


def on_hardware(config: RunConfig) -> bool:
    """Whether the run's jobs go to real devices."""
    if config.runtime is None:
        return False
    return is_concrete(config.runtime.run_on or config.backend)


def to_json(access: Access) -> dict[str, Any]:
    """As it is kept: without what holds for one attempt alone."""
    return {name: getattr(access, name) for name in _KEPT}


def is_sound(values: Any) -> bool:
    """Whether values read back are such as `to_json` gives."""
    if not isinstance(values, Mapping) or set(values) != set(_KEPT) or values["mode"] not in MODES:
        return False
    session, patience, bound = values["session_seconds"], values["patience"], values["max_qpu_seconds"]
    if not isinstance(session, int) or isinstance(session, bool) or not 1 <= session <= LONGEST_SESSION:
        return False
    numbers = [patience] if bound is None else [patience, bound]
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v <= MOST for v in numbers)


def _seconds(option: str, value: float) -> float:
    if not (math.isfinite(value) and 0 < value <= MOST):
        raise UsageError(f"{option} {value}: takes a number of seconds above 0.", f"For example {option} 120.")
    return float(value)


def _duration(value: str | int) -> int:
    found = re.fullmatch(r"(\d{1,6})([smh]?)", str(value).strip().lower())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= LONGEST_SESSION:
        raise UsageError(
            f"--max-time {value}: takes seconds, minutes or hours, up to 24h.", "For example --max-time 90m."
        )
    return seconds
