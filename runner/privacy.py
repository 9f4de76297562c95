"""What a run with differentially private training tells before it trains: noise and epsilon of every node."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.models.budget import DELTA, budget
from runner.config import RunConfig
from runner.progress import Reporter


def tell_privacy(config: RunConfig, records: Mapping[int, int], reporter: Reporter) -> None:
    """Tell what the nodes' noise is, where the config asks for an epsilon.

    Args:
        config: Of the run.
        records: Node -> benign training records that it has.
        reporter: Told of it.

    Raises:
        UsageError: no noise keeps to the epsilon.
        QrunError: what counts it is not installed.
    """
    if config.model.dp is None:
        return
    alike: dict[int, list[int]] = {}
    for node, count in records.items():
        alike.setdefault(count, []).append(node)
    told = []
    for count, nodes in alike.items():
        found = budget(config.model, config.rounds, count)
        who = f"node{'s' * (len(nodes) > 1)} {', '.join(map(str, nodes))}"
        told.append(f"{who} ({count:,} records): noise multiplier {found.multiplier:.3f}, spent {found.spent:.3f}")
    reporter.notice(
        "Privacy",
        f"Training is differentially private: epsilon {config.model.dp:g} at delta {DELTA:g} for a benign training "
        f"record, over all {config.rounds} rounds. {'; '.join(told)}. The energy distance is left out. Covered are the "
        "published models and losses of training, not the feature map, calibration, thresholds and metrics. Noise is "
        "not drawn from the seed: the same config gives other models.",
    )
