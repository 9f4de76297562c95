"""Round 0: all nodes agree on a feature map from totals over their records, in stages.

Counts -> Moments -> Spread -> Products -> Ranges -> FeatureMap. A stage is a value that holds what the totals so far
have settled. `contribution` turns a node's records into integers, every record's part within a public bound; the
total over all nodes goes into `advance`, which gives the next stage. Both are pure, so that each node, on whatever
machine, arrives at the same map; integers make it independent of who holds which record. Only `contribution` sees
records, and only totals are seen by others (`secure_sum`). What totals tell, and which rules keep a single record out
of them, stands in docs/decisions/0002-feature-map-without-records.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError, UsageError
from experiments.datasets.types import Records
from experiments.features.map import MAX_FEATURES, FeatureMap
from experiments.features.secure_sum import SecureSum
from experiments.features.stage import MAX_RECORDS, Stage
from experiments.features.stages import Counts

IntArray = npt.NDArray[np.int64]

Contributor = Callable[[Stage], IntArray]
"""A node's end of the agreement: a stage -> its contribution. `node` makes one of records at hand."""


def node(records: Records) -> Contributor:
    """The end of a node that holds these benign training records (it may hold none).

    Its contributions are checked against the bounds of their stage before they leave.
    """

    def contribute(stage: Stage) -> IntArray:
        if len(records) > MAX_RECORDS:
            raise UsageError(f"a node holds {len(records)} records; the most is {MAX_RECORDS}.", "Use fewer records.")
        out = stage.contribution(records)
        limit = stage.bound * len(records)
        if out.shape != (stage.length,) or (np.abs(out) > limit).any():
            raise QrunError(f"a contribution to stage {stage.title!r} is out of its bounds.", "Please report this.")
        return out

    return contribute


def begin(features: int) -> Stage:
    """The first stage of an agreement on a map to so many features: components and, last, the residual.

    Raises:
        UsageError: Fewer than two features, or more than 64.
    """
    if not 2 <= features <= MAX_FEATURES:
        raise UsageError(
            f"a feature map has 2 to {MAX_FEATURES} features, not {features}.", "Set model.features accordingly."
        )
    return Counts(features)


def agree(contributors: Sequence[Contributor], features: int, secure_sum: SecureSum) -> FeatureMap:
    """All stages in one process.

    Args:
        contributors: One a node, e.g. `node(records)`.
        features: Features of the map, at least two.
        secure_sum: How totals are taken, e.g. `MaskedSum`.

    Raises:
        QrunError: A record cannot be read, the records are too few or too alike, or a total is impossible.
    """
    stage: Stage | FeatureMap = begin(features)
    while isinstance(stage, Stage):
        current = stage
        stage = current.advance(secure_sum(current.name, [contribute(current) for contribute in contributors]))
    return stage
