"""qrun jobs: what was sent to devices, over all runs."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.commands.base import JsonOption, complete_run, guarded, print_json

JobArgument = Annotated[str, typer.Argument(help="Tag or id of the job, or its beginning.")]


@guarded
def list_(
    run: Annotated[
        str | None,
        typer.Argument(help="Only this run's (its name or the beginning of it).", autocompletion=complete_run),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """All jobs that runs have sent, or are about to send, oldest run first."""
    from runner.jobs import list_jobs
    from runner.view_jobs import show_jobs

    jobs, unread = list_jobs(run)
    for line in unread:
        typer.echo(f"qrun: {line}", err=True)
    told = [job.to_dict() for job in jobs]
    if as_json:
        print_json(told)
    else:
        show_jobs(told)


@guarded
def show(job: JobArgument, as_json: JsonOption = False) -> None:
    """One job as it was written down, and how it stands at the service now, where that can be asked."""
    from runner import jobs
    from runner.view_jobs import show_job

    found = jobs.show_job(job)
    if as_json:
        print_json(found)
    else:
        show_job(found)


@guarded
def cancel(
    job: Annotated[str, typer.Argument(help="Tag or id of a job, or name of a run; or the beginning of one.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job, or all jobs of a run that are on their way; `qrun runs resume RUN --resubmit` sends them anew."""
    from runner import jobs
    from runner.view_jobs import show_cancelled

    found, run = jobs.to_cancel(job)
    going = [f for f in found if f.on_its_way]
    if going and not yes:
        names = ", ".join(f.job.job_id or f.job.tag for f in going[:5]) + (" ..." if len(going) > 5 else "")
        if not typer.confirm(f"Cancel {len(going)} job(s): {names}?", err=True):
            raise typer.Exit(1)
    told = jobs.cancel(found)
    told["closed"] = [] if run is None else jobs.close_sessions(run)
    if as_json:
        print_json(told)
    else:
        show_cancelled(told)


def add(app: typer.Typer) -> None:
    """Put the group `jobs` onto the command line."""
    group = typer.Typer(help="Jobs on devices, of all runs: list, show, cancel.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("cancel")(cancel)
    app.add_typer(group, name="jobs")
