"""How work on a device stops, other than by being done."""

from __future__ import annotations

from circuits.errors import QrunError


class ServiceError(QrunError):
    """The service cannot be reached, or refuses (no token, no such device, no such instance ...)."""


class BudgetError(QrunError):
    """The next job could pass the bound on QPU seconds. All results so far are kept."""


class UnclearError(QrunError):
    """It is not clear whether the service has a job; only --resubmit sends it anew."""


class JobFailedError(QrunError):
    """A job failed or was cancelled; only --resubmit sends it anew."""


class LedgerMismatchError(QrunError):
    """A job that was sent for this step asked for something else: the run does not repeat itself here."""


class Detached(QrunError):
    """Not an error: all that could be sent is sent, and the user asked not to wait (exit code 0).

    Args:
        jobs: Ids of the jobs that are on their way.

    Attributes:
        run: Name of the run, told by the layer that knows it.
    """

    exit_code = 0

    def __init__(self, jobs: tuple[str, ...]) -> None:
        super().__init__(f"sent {len(jobs)} job(s): {', '.join(jobs)}.", "Later: qrun runs resume.")
        self.jobs = jobs
        self.run = ""
