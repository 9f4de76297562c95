"""What a stand-in is set to."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

Plan = Literal["open", "premium", "flex"]
PLANS: tuple[Plan, ...] = ("open", "premium", "flex")
OPEN_ALLOWANCE = 600.0
"""QPU seconds in 28 days on the open plan."""
INSTANCE = (
    "crn:v1:bluemix:public:quantum-computing:us-east:a/00000000000000000000000000000000:"
    "00000000-0000-4000-8000-000000000000::"
)


def _token() -> str:
    return f"stand-in-{secrets.token_hex(16)}"


@dataclass
class Settings:
    """How the stand-in behaves; may be changed while it serves.

    Attributes:
        devices: Fake devices (`qrun backends list`); "fake_kyiv" is served as "ibm_kyiv".
        plan: Of the one instance. "open" allows no sessions, and 10 minutes.
        token: The API key that is taken; by default one of its own, so that a test can look for it in files.
        instance: The instance's CRN.
        queue: Seconds that a job waits before it may run.
        running: Seconds of wall-clock time that a job runs at least.
        late: Seconds for which an accepted job does not show in lists yet.
        late_by_id: Seconds for which an accepted job is not found by its id yet.
        usage_late: Seconds after its end for which a job's use is "pending".
        idle: QPU seconds that an idle second of an open session is charged with; 0 makes use independent of time.
        failing: How many of the next jobs fail on the device; each that does lowers it by one.
        allowance: QPU seconds of the instance; None: the plan's (none but on the open plan).
        spent: QPU seconds that are spent already.
        session_seconds: Longest life of a session or batch that does not ask for less.
        interactive_seconds: Idle seconds after which a session goes inactive, and is charged no further.
        circuits: Parameter sets that a job may have.
        executions: Parameter sets times shots that a job may have.
        repetition_delay: Seconds a shot.
        overhead: QPU seconds a job.
    """

    devices: tuple[str, ...] = ("fake_kyiv", "fake_torino", "fake_fez")
    plan: Plan = "premium"
    token: str = field(default_factory=_token)
    instance: str = INSTANCE
    queue: float = 0.0
    running: float = 0.0
    late: float = 0.0
    late_by_id: float = 0.0
    usage_late: float = 0.0
    idle: float = 1.0
    failing: int = 0
    allowance: float | None = None
    spent: float = 0.0
    session_seconds: int = 28_800
    interactive_seconds: float = 60.0
    circuits: int = 10_000
    executions: int = 10_000_000
    repetition_delay: float = 250e-6
    overhead: float = 2.0

    @property
    def limit(self) -> float | None:
        """QPU seconds of the instance, None without a bound."""
        if self.allowance is not None:
            return self.allowance
        return OPEN_ALLOWANCE if self.plan == "open" else None
