"""`qrun attack`: a federation under attack, many times over; who is found out, how soon, and what detection keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.commands.base import JsonOption, complete_backend, complete_experiment, guarded, print_json


def add(app: typer.Typer) -> None:
    """Put the command onto the app."""
    app.command("attack")(attack)


def _names(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


@guarded
def attack(  # noqa: PLR0917  Typer reads options from the signature
    name: Annotated[str, typer.Argument(help="The experiment.", autocompletion=complete_experiment)],
    backend: Annotated[
        str | None,
        typer.Option(
            help="ideal, a device, or a snapshot FILE.json. \\[default: fake_kyiv]", autocompletion=complete_backend
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Federated nodes. \\[default: 10]")] = None,
    bad: Annotated[int, typer.Option(help="Hostile ones among them.")] = 3,
    rounds: Annotated[int | None, typer.Option(help="Rounds; windows where nobody waits. \\[default: 10; 20]")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="sync: all wait for all; async: rounds are windows, nodes fast and slow.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of each case. \\[default: 20]")] = None,
    first_seed: Annotated[int, typer.Option(help="The first of them; others follow one by one.")] = 0,
    attacks: Annotated[
        str | None, typer.Option(help="Comma-separated, or `list` for what there is. \\[default: all]")
    ] = None,
    partitions: Annotated[str | None, typer.Option(help="Comma-separated. \\[default: iid,dirichlet:0.5]")] = None,
    aggregations: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: reputation (with grades), and mean, median, trimmed-mean, krum (without, on the "
            "first 5 seeds). \\[default: all]"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of values; options given here win.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set's files, else looked for.")] = None,
    out: Annotated[Path | None, typer.Option(help="File of finished cells; gone on with where it exists.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes. \\[default: one a core, 2 at most]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A slice that takes a minute: few attacks, 4 rounds.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Attack a simulated federation in many ways: `qrun attack nsl-kdd --out attacks.jsonl`."""
    import os

    if attacks == "list":
        _list(as_json)
        return
    from runner.attack.run import QUICK, QUICK_WINDOWS, request, tabulate
    from runner.attack.show import CellBar, show
    from runner.attack.summary import markdown as as_markdown

    few = QUICK if quick else {}
    if quick and schedule == "async":
        few = {**QUICK, "rounds": QUICK_WINDOWS}
    asked = request(
        name,
        {
            "backend": backend,
            "nodes": nodes,
            "rounds": rounds if rounds is not None else few.get("rounds"),
            "schedule": schedule,
        },
        file=config,
        bad=bad,
        seeds=seeds if seeds is not None else few.get("seeds", 20),
        first_seed=first_seed,
        attacks=_names(attacks) or few.get("attacks", ()),
        partitions=_names(partitions) or few.get("partitions", ()),
        aggregations=_names(aggregations) or few.get("aggregations", ()),
        jobs=jobs if jobs is not None else min(2, os.cpu_count() or 1),
        tell=lambda title, text: typer.echo(f"{title}: {text}", err=True),
    )
    with CellBar() as bar:
        try:
            table = tabulate(asked, data=data, out=out, notify=bar.notice, progress=bar.step, tell=bar.tell)
        except KeyboardInterrupt:
            hint = "Start the same command again: it goes on." if out else "With --out FILE it could be gone on with."
            raise KeyboardInterrupt(f"interrupted. {hint}") from None
    if as_json:
        print_json(table.to_json(asked))
    elif markdown:
        typer.echo(as_markdown(table.rows, asked.config.nodes))
    else:
        show(table, asked.config.nodes)


def _list(as_json: bool) -> None:
    from runner.attack.attacks import ATTACKS

    if as_json:
        print_json([{"name": a.name, "summary": a.summary} for a in ATTACKS.values()])
        return
    for a in ATTACKS.values():
        typer.echo(f"{a.name:22} {a.summary}")
