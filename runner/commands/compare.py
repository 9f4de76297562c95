"""`qrun compare` and `qrun report`: figures side by side, as pages, tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.commands.base import JsonOption, complete_experiment, complete_run, guarded, print_json

if TYPE_CHECKING:
    from runner.report.document import Report


def add(app: typer.Typer) -> None:
    """Put `compare` and `report` onto the command line."""
    app.command("compare")(compare)
    app.command("report")(report)


def _names(value: str | None) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] if value else []


DataOption = Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")]
JobsOption = Annotated[int | None, typer.Option(help="Worker processes. \\[default: one a core]")]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder of the report; new, empty, or an earlier report's. \\[default: one by name]")
]


@guarded
def compare(
    name: Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)],
    *,
    backends: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated devices and snapshot files; ideal is always among them. "
            "\\[default: ideal,fake_kyiv,fake_torino,fake_fez; with --axis the config's own]"
        ),
    ] = None,
    mitigation: Annotated[
        str | None,
        typer.Option(help="Comma-separated techniques and stacks at evaluation; none is always among them."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or a comma-separated list of them.")] = "5",
    axis: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="AXIS VALUES",
            help="Vary one thing: noise 0,1,2,3; calibration a.json,b.json; layout 0,1,2; reps 1,2,4; qubits 4,6,8; "
            "shots exact,1024,8192.",
        ),
    ] = None,
    train_each: Annotated[
        bool, typer.Option("--train-each", help="Also train with each mitigation, on each device.")
    ] = False,
    nodes: Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 3]")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. \\[default: 5]")] = None,
    qubits: Annotated[int | None, typer.Option(help="Qubits of the generator. \\[default: 6]")] = None,
    reps: Annotated[int | None, typer.Option(help="Repetitions of EfficientSU2. \\[default: 4]")] = None,
    engine: Annotated[str | None, typer.Option(help="twin or aer. \\[default: twin]")] = None,
    shots: Annotated[int | None, typer.Option(help="Shots of each circuit; exact values where not given.")] = None,
    idle_noise: Annotated[
        bool | None, typer.Option("--idle-noise/--no-idle-noise", help="Whether qubits relax while they wait.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
    data: DataOption = None,
    jobs: JobsOption = None,
    cluster: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler that plays the runs: tcp://HOST:PORT.")
    ] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare devices and mitigation: `qrun compare nsl-kdd --backends ideal,fake_kyiv --mitigation none,zne`.

    Finished runs are reused; what is missing runs in parallel, and a comparison that was stopped goes on.
    """
    from circuits.errors import UsageError
    from runner.compare.compare import compare as played
    from runner.compare.grid import grid_of
    from runner.report.build import build
    from runner.report.material import from_comparison
    from runner.report.mitigation_view import RowBar
    from runner.report.runs import check_jobs
    from runner.report.write import check_folder
    from runner.store import home

    numbers = _names(seeds)
    if not numbers or not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--seeds {seeds}: a number of seeds, or a list as 0,1,2.")
    grid = grid_of(
        name,
        {
            "nodes": nodes,
            "rounds": rounds,
            "qubits": qubits,
            "reps": reps,
            "engine": engine,
            "shots": shots,
            "idle_noise": idle_noise,
        },
        file=config,
        backends=_names(backends),
        stacks=_names(mitigation),
        seeds=[int(number) for number in numbers] if len(numbers) > 1 else int(numbers[0]),
        axis=axis,
        train_each=train_each,
    )
    workers = check_jobs(jobs)
    folder = out or home() / "reports" / f"{name}-{grid.digest[:8]}"
    check_folder(folder)
    with RowBar("reading the data") as bar:
        try:
            found = played(
                grid,
                data=data,
                workers=workers,
                cluster=cluster,
                notify=lambda title, text: bar.console.print(f"{title}: {text}", soft_wrap=True),
                foresee=lambda forecast: bar.console.print(forecast.sentence, soft_wrap=True),
                progress=bar.say,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted. Start the same command again: it goes on.") from None
        bar.say(1, 1, "writing the report")
        made = build(from_comparison(found))
        tell(made, folder, as_json=as_json)


@guarded
def report(
    runs: Annotated[
        list[str], typer.Argument(help="Names of runs (or their beginnings), or folders.", autocompletion=complete_run)
    ],
    *,
    data: DataOption = None,
    jobs: JobsOption = None,
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate/--no-evaluate", help="Whether final models are scored again, for curves and distances."
        ),
    ] = True,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report on finished runs: `qrun report RUN`, or several side by side."""
    from runner.report.build import build
    from runner.report.mitigation_view import RowBar
    from runner.report.runs import check_jobs, default_folder, find_runs, material_of
    from runner.report.write import check_folder

    workers = check_jobs(jobs)
    found, notices = find_runs(runs)
    folder = out or default_folder(found)
    check_folder(folder)
    with RowBar("reading the runs") as bar:
        try:
            material = material_of(found, notices, data=data, workers=workers, evaluates=evaluate, progress=bar.say)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted. Start the same command again: it goes on.") from None
        tell(build(material), folder, as_json=as_json)


def tell(made: Report, folder: Path, *, as_json: bool) -> None:
    """Write a report, and print its sentences and its first table."""
    from runner.report.write import write

    files = write(made, folder)
    if as_json:
        print_json({**made.to_json(), "folder": str(folder)})
        return
    from rich.text import Text

    from runner.report.document import NUMERIC, shown
    from runner.report.formats import filled_columns
    from runner.tables import emit, table_of

    things: list[Any] = [Text(f"{k}. {sentence}") for k, sentence in enumerate(made.sentences, start=1)]
    things += [Text(notice, style="yellow") for notice in made.notices]
    for table in list(made.tables())[:1]:
        columns = [c for c in filled_columns(table) if not c.key.endswith("_p") and c.key != "seeds"][:6]
        shape = table_of(
            table.title, [c.head for c in columns], [k for k, c in enumerate(columns) if c.kind in NUMERIC]
        )
        for row in table.rows:
            shape.add_row(*(Text(shown(row.get(c.key), c)) for c in columns))
        things.append(shape)
    emit(*things, Text(f"Report: {files[0]}"), Text("Beside it: report.md, tables.tex, report.json, tables/, plots/"))
