"""`qrun dashboard`: pages about runs while they go on, for a browser on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.commands.base import guarded


def add(app: typer.Typer) -> None:
    """Put the command onto the app."""
    app.command("dashboard")(dashboard)


@guarded
def dashboard(
    port: Annotated[int, typer.Option(help="On the loopback address; 0 for any free one.")] = 8765,
) -> None:
    """Runs, rounds, jobs in the queue, reputation and spend, live at http://127.0.0.1:8765 until Ctrl-C; read-only."""
    from runner.dashboard.app import HOST, listen, serve

    listening = listen(port)
    typer.echo(f"http://{HOST}:{listening.getsockname()[1]}/ (read-only, this machine alone; Ctrl-C ends it)")
    serve(listening)
