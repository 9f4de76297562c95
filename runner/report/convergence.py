"""convergence.png: quality of each node and of the aggregate over the rounds, on validation records."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.store import write_durably

# Okabe and Ito's palette: told apart with any colour vision.
NODE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = "osD^vP"


def draw_convergence(result: Mapping[str, Any], path: Path) -> None:
    """Draw AUROC and F1 over the rounds to a PNG file.

    Args:
        result: A run's result (runner/result.schema.json).
        path: Where to; replaced in one step.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # What was taken back is no part of the way, and of a refused model only its own statement is known.
    rounds = [r for r in result["rounds"] if not r["void"]]
    numbers = [r["number"] for r in rounds]
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (metric, label) in zip(
            figure.subplots(1, 2), (("auroc", "AUROC"), ("f1", "F1 at the label-free threshold")), strict=True
        ):
            for k, node in enumerate(result["nodes"]):
                values = [
                    next((n["metrics"][metric] for n in r["nodes"] if n["id"] == node["id"] and not n["fault"]), None)
                    for r in rounds
                ]
                axes.plot(
                    numbers,
                    [float("nan") if v is None else v for v in values],
                    color=NODE_COLOURS[k % 6],
                    marker=MARKERS[k % 6],
                    markersize=4,
                    linewidth=1,
                    alpha=0.85,
                    label=f"node {node['id']}" if len(result["nodes"]) <= 12 else None,
                )
            axes.plot(
                numbers,
                [r["aggregate"]["metrics"][metric] for r in rounds],
                color="black",
                marker="o",
                markersize=5,
                linewidth=2.2,
                label="aggregate",
            )
            axes.set_xlabel("round")
            axes.set_ylabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25)
            axes.legend(frameon=False, fontsize=8)
        source = result["dataset"]["source"]
        stand_in = "" if source == "official" else f" — {source.upper()} DATA"
        figure.suptitle(
            f"{result['run']}: validation quality by round on {result['backend']['name']} "
            f"({result['backend']['engine']}){stand_in}",
            fontsize=10,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_durably(path, buffer.getvalue())
