"""What commands that play a run or estimate one share: the options of service and mitigation, and the end of it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from runner.commands.base import print_json

if TYPE_CHECKING:
    from runner.run import Outcome
    from runner.view import Terminal

ModeOption = Annotated[
    str | None,
    typer.Option(help="session, batch or job; auto takes the first that the plan allows. \\[default: auto]"),
]
MaxQpuOption = Annotated[
    float | None, typer.Option("--max-qpu-seconds", help="Stop before the run's jobs take more QPU time than this.")
]
MaxTimeOption = Annotated[
    str | None, typer.Option("--max-time", help="Longest life of a session or batch, e.g. 90m; 2h if not told.")
]
PatienceOption = Annotated[
    float | None,
    typer.Option(help="Seconds to look for a job that the service may have; 120 if not told."),
]
MitigationOption = Annotated[
    str | None,
    typer.Option(
        help="Error mitigation: none, auto (chosen by calibration circuits), readout, zne, ddd, twirl, lre, pec, "
        "cdr, symmetry, or a stack from the device outwards, as readout+zne. \\[default: none]"
    ),
]
MitigationAtOption = Annotated[
    str | None, typer.Option(help="With --mitigation: of training, evaluation or both. \\[default: both]")
]
MitigationBudgetOption = Annotated[
    float | None,
    typer.Option(help="With --mitigation: most circuits for each unmitigated one; 100, for auto 10, if not told."),
]


def play(run: Callable[[Terminal], Outcome], *, as_json: bool) -> None:
    """Play a run and show its result, or that its jobs were sent and it is left alone."""
    from backends.runtime.errors import Detached
    from runner.view import Terminal, show_result

    try:
        with Terminal(tables=not as_json) as terminal:
            outcome = run(terminal)
    except Detached as left:
        then = f"qrun runs resume {left.run}"
        if as_json:
            print_json({"run": left.run, "detached": True, "jobs": list(left.jobs), "resume": then})
        else:
            typer.echo(f"{left.message} Go on with: {then}")
        return
    if as_json:
        print_json(outcome.result)
    else:
        show_result(outcome.result, outcome.path)
