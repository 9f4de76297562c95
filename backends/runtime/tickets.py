"""What stands for a job between sending and waiting, and how one is written down before it is sent."""

from __future__ import annotations

from dataclasses import dataclass

from backends.runtime.errors import JobFailedError, ServiceError, UnclearError
from backends.runtime.labels import Label
from backends.runtime.ledger import Job, new_tag
from backends.runtime.pubs import Part

_TAG = 80
"""Longest tag; the service takes a few characters more."""


class TooLargeError(ServiceError):
    """The service takes no job of this size."""


@dataclass
class Ticket:
    """A job that was sent, or needs not be.

    Attributes:
        key: What it is for.
        part: What it runs.
        label: Of the work that it is part of.
        job: As the ledger has it.
        paid: Whether this step pays for it: not where another step's job answers the same request.
    """

    key: str
    part: Part
    label: Label
    job: Job
    paid: bool = True


def intent(
    key: str, part: Part, label: Label, *, backend: str, run: str, local: bool, estimate: float, now: float
) -> Job:
    """A job as it is written down before anything is sent, with tags that say what it is for."""
    tag = new_tag()
    tags = [tag, *([f"qrun-run-{run}"] if run else []), *([f"qrun-node-{label.node}"] if label.node >= 0 else [])]
    tags += [f"qrun-round-{label.round}", f"qrun-step-{label.purpose}-{label.step}"]
    return Job(
        tag=tag,
        key=key,
        request=part.digest,
        backend=backend,
        circuits=part.rows,
        shots=part.options.shots,
        reserve=0.0,
        estimate=estimate,
        tags=tuple(_plain(text) for text in tags),
        local=local,
        created=now,
    )


def failure(job: Job, run: str) -> JobFailedError:
    """What to raise for a job that failed."""
    return JobFailedError(
        f"the job {job.job_id} for {job.key} on {job.backend} has no result: {(job.reason or 'failed').rstrip('.')}.",
        f"`qrun runs resume {run or 'RUN'} --resubmit` sends it anew, and pays for it anew.",
    )


def unclear(job: Job, run: str) -> UnclearError:
    """What to raise for a job of which nobody knows whether it arrived."""
    return UnclearError(
        f"the connection was lost while {job.key} was sent to {job.backend}, and the service shows no job tagged "
        f"{job.tag} yet.",
        f"`qrun runs resume {run or 'RUN'}` looks again (a job may be shown late); with --resubmit it is sent anew, "
        "and paid twice if the first one did arrive.",
    )


def _plain(tag: str) -> str:
    """A tag of letters, digits, dots, dashes and underscores."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in tag)[:_TAG]
