"""Figure 4 of the method: accuracy of the nodes over rounds, federated against isolated, from real runs.

Federated: each node's own model after a round, as the run has it (its own validation records, label-free threshold).
Isolated: the same node as the only one of a federation of one, with the same records, start, map, steps and seeds: it
joins nobody's models but its own. Both are measured in the same way, on the same records of the node.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuits.errors import QrunError, UsageError
from experiments.metrics import evaluate
from runner.benchmark.ablation import world_of
from runner.benchmark.bench import Bench
from runner.benchmark.compare import played
from runner.config import RunConfig
from runner.report.convergence import MARKERS, NODE_COLOURS
from runner.store import write_durably
from runner.update import dequantise


@dataclass(frozen=True)
class Curves:
    """Accuracy by seed, round and node: (seeds, rounds, nodes) each; NaN where a node was absent.

    `source` says which data ("official", "stand-in"), `backend` which device.
    """

    federated: np.ndarray[Any, np.dtype[np.float64]]
    isolated: np.ndarray[Any, np.dtype[np.float64]]
    source: str
    backend: str


def curves(
    config: RunConfig, seeds: Sequence[int], data: Path | None, progress: Callable[[int, int, str], None]
) -> Curves:
    """The accuracies of one run a seed (finished ones are reused), and of its nodes alone."""
    federated, isolated, source = [], [], ""
    for k, seed in enumerate(seeds):
        own = config.model_copy(update={"seed": seed})
        progress(k, len(seeds), f"figure: seed {seed}")
        bench = Bench.load(own, data)
        source = bench.study.dataset.source
        try:
            result = played(own, bench.study.dataset.sha256, data)
            federated.append(_of_run(result))
            isolated.append(_alone(bench))
        finally:
            bench.close()
    progress(len(seeds), len(seeds), "figure drawn")
    return Curves(np.array(federated), np.array(isolated), source, config.backend)


def _of_run(result: Mapping[str, Any]) -> list[list[float]]:
    rounds = [r for r in result["rounds"] if not r["void"]]
    out = []
    for r in rounds:
        by_node = {n["id"]: n["metrics"]["accuracy"] for n in r["nodes"] if not n["fault"]}
        out.append([by_node.get(n["id"], float("nan")) for n in result["nodes"]])
    return out


def _alone(bench: Bench) -> list[list[float]]:
    """Accuracy by round and node, each node going on from its own model alone."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        world = world_of(bench, bench.model())
        out: list[list[float]] = [[] for _ in range(bench.config.rounds)]
        for peer in world.peers(bench.config.federation).values():
            blocks = world.start
            for number in range(1, bench.config.rounds + 1):
                blocks = world.train(peer, number, blocks)
                scorer = peer.scorer(dequantise(blocks), number)
                calibration = scorer.calibrate(peer.validation_features)
                scores = scorer.scores(peer.labelled, calibration.parts)
                found = evaluate(scores, peer.labels, scorer.threshold(calibration))
                out[number - 1].append(found.accuracy)
        return out
    finally:
        torch.set_num_threads(threads)


def draw(
    config: RunConfig,
    seeds: Sequence[int],
    data: Path | None,
    path: Path,
    *,
    progress: Callable[[int, int, str], None],
) -> None:
    """Make the curves and draw them to a PNG file, replaced in one step.

    Raises:
        UsageError: there is no such folder.
        QrunError: the file cannot be written.
    """
    if not path.expanduser().absolute().parent.is_dir():
        raise UsageError(f"--figure {path}: no such folder.", "Name a file in a folder that is there.")
    image = picture(curves(config, seeds, data, progress))
    try:
        write_durably(path.expanduser().absolute(), image)
    except OSError as error:
        raise QrunError(f"--figure {path}: {error.strerror or error}.", "Name another file.") from None


def picture(found: Curves) -> bytes:
    """A PNG: mean over seeds by node, their range as a band."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    seeds, rounds, nodes = found.federated.shape
    numbers = np.arange(1, rounds + 1)
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 2, sharey=True)
        for side, title, values in (
            (axes[0], "federated", found.federated),
            (axes[1], "isolated", found.isolated),
        ):
            for node in range(nodes):
                mine = values[:, :, node]
                colour = NODE_COLOURS[node % 6]
                side.plot(
                    numbers,
                    np.nanmean(mine, axis=0),
                    color=colour,
                    marker=MARKERS[node % 6],
                    markersize=4,
                    linewidth=1.4,
                    label=f"node {node}" if nodes <= 12 else None,
                )
                if seeds > 1:
                    side.fill_between(numbers, np.nanmin(mine, 0), np.nanmax(mine, 0), color=colour, alpha=0.12, lw=0)
            side.set_title(title, fontsize=10)
            side.set_xlabel("round")
            side.xaxis.set_major_locator(MaxNLocator(integer=True))
            side.grid(alpha=0.25)
        axes[0].set_ylabel("accuracy on the node's validation records")
        axes[1].legend(frameon=False, fontsize=8, loc="lower right")
        stand_in = "" if found.source == "official" else f" — {found.source.upper()} DATA"
        over = f"mean of {seeds} seeds, bands from lowest to highest" if seeds > 1 else "one seed"
        figure.suptitle(f"Accuracy of each node over the rounds on {found.backend} ({over}){stand_in}", fontsize=10)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
