"""`qrun benchmark` and `qrun ablate`: the QGAN beside other models, and beside itself with another generator."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json
from runner.commands.run_options import DpOption

NameArgument = Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)]
SeedsOption = Annotated[int, typer.Option(help="How many seeds, from --seed on.")]
SeedOption = Annotated[int | None, typer.Option(help="The first of them. \\[default: 0]")]
BackendOption = Annotated[
    str | None, typer.Option(help="Device of the twin. \\[default: fake_kyiv]", autocompletion=complete_backend)
]
NodesOption = Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 3]")]
RoundsOption = Annotated[int | None, typer.Option(help="Rounds. \\[default: 5]")]
QubitsOption = Annotated[int | None, typer.Option(help="Qubits of the generator. \\[default: 6]")]
PartitionOption = Annotated[str | None, typer.Option(help="iid, or dirichlet:ALPHA. \\[default: iid]")]
PresetOption = Annotated[
    str | None, typer.Option(help="Named settings: fast, default, better or best; options given here win.")
]
ConfigOption = Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")]
DataOption = Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")]
OutOption = Annotated[
    Path | None, typer.Option(help="File of finished rows (JSON lines); the same command goes on from it.")
]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")]


def _complete_model(incomplete: str) -> list[str]:
    from runner.benchmark.compare import MODELS

    return [m for m in MODELS if m.startswith(incomplete)]


def split(names: list[str] | None) -> list[str]:
    """Names given one by one, or joined by commas."""
    return [part for name in names or [] for part in name.replace(",", " ").split()]


@guarded
def benchmark(
    name: NameArgument = "nsl-kdd",
    *,
    seeds: SeedsOption = 5,
    seed: SeedOption = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Names joined by commas; may be given again. \\[default: all]", autocompletion=_complete_model
        ),
    ] = None,
    backend: BackendOption = None,
    nodes: NodesOption = None,
    rounds: RoundsOption = None,
    qubits: QubitsOption = None,
    partition: PartitionOption = None,
    preset: PresetOption = None,
    dp: DpOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    out: OutOption = None,
    figure: Annotated[
        Path | None, typer.Option(help="Also draw accuracy over rounds, federated against isolated, to this PNG.")
    ] = None,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """The QGAN and all that it is held against, on the same data and features, in one table."""
    from runner.benchmark.compare import asked, compare
    from runner.benchmark.table import markdown as as_markdown
    from runner.benchmark.table import show, to_json
    from runner.report.mitigation_view import RowBar

    options = locals_of(seed, backend, nodes, rounds, qubits, partition, preset)
    wanted = asked(_config(name, options, config), split(models), seeds, dp)
    with RowBar("reading the data") as bar:
        try:
            table = compare(
                wanted,
                data=data,
                out=out,
                notify=bar.notice,
                say=partial(bar.console.print, soft_wrap=True),
                progress=bar.say,
            )
            if figure is not None:
                from runner.report.figure4 import draw

                draw(wanted.config, wanted.seeds, data, figure, progress=bar.say)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interrupted(out)) from None
    if as_json:
        print_json(to_json(wanted, table))
    elif markdown:
        typer.echo(as_markdown(wanted, table))
    else:
        show(wanted, table)


@guarded
def ablate(
    name: NameArgument = "nsl-kdd",
    *,
    seeds: SeedsOption = 10,
    seed: SeedOption = None,
    records: Annotated[
        int | None, typer.Option(help="Benign training records that each node keeps; all where not given.")
    ] = None,
    backend: BackendOption = None,
    nodes: NodesOption = None,
    rounds: RoundsOption = None,
    qubits: QubitsOption = None,
    partition: PartitionOption = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
    out: OutOption = None,
    markdown: MarkdownOption = False,
    as_json: JsonOption = False,
) -> None:
    """Does the quantum part matter? The generator trained, untrained, classical, classical and larger, or none."""
    from runner.benchmark.ablation import ablate as play_all
    from runner.benchmark.ablation import asked
    from runner.benchmark.ablation_table import markdown as as_markdown
    from runner.benchmark.ablation_table import show, to_json
    from runner.report.mitigation_view import RowBar

    options = locals_of(seed, backend, nodes, rounds, qubits, partition, preset)
    wanted = asked(_config(name, options, config), seeds, records)
    with RowBar("reading the data") as bar:
        try:
            table = play_all(wanted, data=data, out=out, notify=bar.notice, progress=bar.say)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interrupted(out)) from None
    if as_json:
        print_json(to_json(wanted, table))
    elif markdown:
        typer.echo(as_markdown(wanted, table))
    else:
        show(wanted, table)


def locals_of(  # noqa: PLR0917 - the options that both commands share, in their order
    seed: int | None,
    backend: str | None,
    nodes: int | None,
    rounds: int | None,
    qubits: int | None,
    partition: str | None,
    preset: str | None,
) -> dict[str, Any]:
    """Options by their names in the config."""
    return {
        "seed": seed,
        "backend": backend,
        "nodes": nodes,
        "rounds": rounds,
        "qubits": qubits,
        "partition": partition,
        "preset": preset,
    }


def _config(name: str, options: dict[str, Any], file: Path | None) -> Any:
    from runner.options import config_from

    return config_from(name, options, file)


def interrupted(out: Path | None) -> str:
    """What is told on Ctrl-C."""
    return (
        "interrupted; nothing was kept: give --out FILE." if out is None else f"interrupted; {out} keeps what is done."
    )


def add(app: typer.Typer) -> None:
    """Put `benchmark` and `ablate` onto the command line."""
    app.command()(benchmark)
    app.command()(ablate)
