"""`qrun mitigation`: what techniques there are, what they make of expectation values, and what of learning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json

BackendsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A device; may be given again. \\[default: fake_kyiv, fake_torino, fake_fez]",
        autocompletion=complete_backend,
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option(help="TOML file; of its table \\[mitigation] the options of techniques count.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="File of finished rows (JSON lines); the same command goes on from it.")
]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")]


def add(app: typer.Typer) -> None:
    """Put the group `mitigation` onto the command line."""
    group = typer.Typer(help="Error mitigation: what it does, what it costs, what it is worth.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("compare")(compare)
    group.command("learning")(learning)
    app.add_typer(group, name="mitigation")


@guarded
def list_(as_json: JsonOption = False) -> None:
    """All techniques, in the order in which they stand in a stack: nearest to the device first."""
    from runner.report.mitigation_list import LEGEND, techniques

    found = techniques()
    if as_json:
        print_json([technique.to_json() for technique in found])
        return
    from runner.tables import emit, show_table

    show_table(
        "Mitigation techniques, from the device outwards",
        ["name", "what it does", "circuits for each", "options (config file)"],
        [[t.name, t.summary, t.circuits, ", ".join(t.options) or "-"] for t in found],
    )
    emit(LEGEND)


@guarded
def compare(
    *,
    backend: BackendsOption = None,
    qubits: Annotated[
        list[int] | None, typer.Option(help="Of the generator; may be given again. \\[default: 4, 8]")
    ] = None,
    shots: Annotated[
        list[str] | None,
        typer.Option(help="Shots of each circuit, or exact; may be given again. \\[default: exact]"),
    ] = None,
    technique: Annotated[
        list[str] | None,
        typer.Option(help="A technique or a stack, as readout+zne; may be given again. \\[default: all, some stacks]"),
    ] = None,
    sets: Annotated[int, typer.Option(help="Random parameter sets that errors are means over.")] = 12,
    repetitions: Annotated[int, typer.Option(help="With shots: how often everything is sampled.")] = 12,
    draws: Annotated[
        int, typer.Option(help="How often techniques that draw circuits (twirl, pec, cdr) draw them.")
    ] = 3,
    seed: Annotated[int, typer.Option(help="Of layout, parameter sets, draws and shots.")] = 0,
    engine: Annotated[str, typer.Option(help="twin, or aer for the shots; exact values are the twin's.")] = "twin",
    readout_error: Annotated[
        bool, typer.Option("--readout-error/--no-readout-error", help="Whether readout errors count.")
    ] = True,
    idle_noise: Annotated[
        bool, typer.Option("--idle-noise", help="Qubits relax while they wait: what ddd is against.")
    ] = False,
    reps: Annotated[int, typer.Option(min=0, max=50, help="Repetitions of EfficientSU2.")] = 4,
    entanglement: Annotated[
        str, typer.Option(help="full, linear, reverse_linear, pairwise, circular or sca.")
    ] = "reverse_linear",
    config: ConfigOption = None,
    out: OutOption = None,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bias and spread against ideal values, by technique: `qrun mitigation compare --backend fake_kyiv --qubits 4`."""
    from backends.mitigation.compare import Setup
    from runner.report.mitigation_compare import asked, options_of, to_json
    from runner.report.mitigation_compare import compare as rows_of
    from runner.report.mitigation_view import RowBar, show
    from runner.report.mitigation_view import markdown as as_markdown

    setup = Setup(
        sets=sets,
        draws=draws,
        repetitions=repetitions,
        seed=seed,
        engine=engine,
        readout_error=readout_error,
        idle_noise=idle_noise,
        options=options_of(config),
    )
    wanted = asked(
        backends=backend or (),
        qubits=qubits or (),
        shots=shots or (),
        stacks=technique or (),
        setup=setup,
        reps=reps,
        entanglement=entanglement,
    )
    with RowBar() as bar:
        try:
            rows = rows_of(wanted, out=out, progress=bar.step)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_interrupted(out)) from None
    if as_json:
        print_json(to_json(wanted, rows))
    elif markdown:
        typer.echo(as_markdown(rows, setup))
    else:
        show(rows, setup)


@guarded
def learning(
    name: Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)] = "nsl-kdd",
    *,
    mitigation: Annotated[str | None, typer.Option(help="The stack. \\[default: readout+zne]")] = None,
    backend: BackendsOption = None,
    seeds: Annotated[
        list[int] | None, typer.Option(help="Seed of a federation; may be given again. \\[default: 0 to 4]")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 3]")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. \\[default: 5]")] = None,
    qubits: Annotated[int | None, typer.Option(help="Qubits of the generator. \\[default: 6]")] = None,
    engine: Annotated[str | None, typer.Option(help="twin or aer. \\[default: twin]")] = None,
    shots: Annotated[int | None, typer.Option(help="Shots of each circuit; exact values where not given.")] = None,
    idle_noise: Annotated[
        bool | None, typer.Option("--idle-noise/--no-idle-noise", help="Whether qubits relax while they wait.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes. \\[default: one a core, 2 at most]")] = None,
    out: OutOption = None,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Detection with mitigation at training, at evaluation, at both and nowhere: `qrun mitigation learning`."""
    import os

    from runner.report.mitigation_learning import asked, learn
    from runner.report.mitigation_learning_table import markdown as as_markdown
    from runner.report.mitigation_learning_table import show, to_json
    from runner.report.mitigation_view import RowBar

    options = {
        "nodes": nodes,
        "rounds": rounds,
        "qubits": qubits,
        "engine": engine,
        "shots": shots,
        "idle_noise": idle_noise,
    }
    wanted = asked(
        name,
        options,
        file=config,
        stack=mitigation,
        backends=backend or (),
        seeds=seeds or (),
        jobs=jobs if jobs is not None else min(2, os.cpu_count() or 1),
    )
    with RowBar("reading the data") as bar:
        try:
            table = learn(wanted, data=data, out=out, notify=bar.notice, progress=bar.say)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_interrupted(out)) from None
    if as_json:
        print_json(to_json(wanted, table))
    elif markdown:
        typer.echo(as_markdown(wanted, table))
    else:
        show(wanted, table)


def _interrupted(out: Path | None) -> str:
    hint = "Start the same command again: it goes on." if out else "With --out FILE it could be gone on with."
    return f"interrupted. {hint}"
