"""What published models give away: can somebody who has one tell a node's training records from others?

The attack is LOGAN's (Hayes, Melis, Danezis, De Cristofaro, PoPETs 2019): a record that the discriminator takes for
more benign counts as a member. Its AUC is over benign training records of the nodes that the model learned from,
against benign records of the hold-out, which nobody learned from: 0.5 is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from circuits.errors import QrunError
from contracts.errors import ContentError
from contracts.store import BlockStore
from experiments.datasets.types import FloatArray
from experiments.metrics import evaluate
from experiments.models.qgan import QGAN, Parameters
from runner.audit.models import skeleton
from runner.benchmark.bench import Bench
from runner.update import MAX_BYTES, dequantise, parse_update


def membership(bench: Bench, folder: Path, result: Mapping[str, Any]) -> dict[str, Any] | None:
    """AUC of the attack on the final model ("final"), and by round the mean over the nodes' own models ("rounds").

    Args:
        bench: The run's data.
        folder: The run's.
        result: Its result.

    Returns:
        None where the run's store is not there any more.
    """
    store, model = BlockStore(folder / "blocks", read_only=True), skeleton(bench.config)
    tables = bench.tables("agreed")
    others = tables.holdout[~bench.study.holdout.is_attack]

    def parameters(cid: str) -> Parameters:
        return dequantise(parse_update(store.get(cid, max_bytes=MAX_BYTES), model.shapes()).blocks)

    try:
        final = auc(model, parameters(result["final"]["cid"]), np.concatenate(tables.train), others)
        rounds = []
        for entry in result["rounds"]:
            own = [
                auc(model, parameters(n["cid"]), tables.train[n["id"]], others)
                for n in entry["nodes"]
                if not n["fault"] and not entry["void"]
            ]
            if own:
                rounds.append(float(np.mean(own)))
    except (ContentError, QrunError):
        return None
    return {"final": final, "rounds": rounds}


def auc(model: QGAN, parameters: Parameters, members: FloatArray, others: FloatArray) -> float:
    """Chance that a member's logit is above that of a record that is none, ties counting half."""
    scores = np.concatenate([model.logits(parameters, x) for x in (members, others)])
    return evaluate(scores, np.repeat([True, False], [len(members), len(others)]), 0.0).auroc
