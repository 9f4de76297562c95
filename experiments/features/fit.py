"""Whether an agreed feature map describes a node's own records: what a node asks before it gives the map its vote.

Masked sums show no node's part, so that nobody can see who put made-up records into them, or how many. But every node
knows its own records. With z its records in the map's standardised columns (mean 0 and variance up to 1 over all
records that the map was made of), and means over the columns,

    U = mean variance of z          S = mean squared mean of z

Where the map was made of records like its own, U is about a half (columns of rare values hold most of the rest), and S
is near zero. Made-up extreme values stretch the scales, and U falls; many made-up records of any kind move the means,
and S grows. The vote is one a node, whatever numbers of records were claimed. Measured in
docs/decisions/0005-grades-that-separate.md.
"""

from __future__ import annotations

from experiments.datasets.types import Records
from experiments.features.encoding import standardise, transform
from experiments.features.map import FeatureMap


def own_variance_and_shift(feature_map: FeatureMap, records: Records) -> tuple[float, float]:
    """U and S of a node's benign training records; 0 and 0 of none."""
    if len(records) == 0:
        return 0.0, 0.0
    z = standardise(transform(records, feature_map.columns), feature_map.mean, feature_map.sd)
    return float(z.var(axis=1).mean()), float((z.mean(axis=1) ** 2).mean())


def suits(feature_map: FeatureMap, records: Records, *, least_variance: float, most_shift: float) -> bool:
    """Whether a node with these benign training records votes for the map; one without any has nothing against it.

    Args:
        feature_map: As agreed.
        records: The node's.
        least_variance: What U has to be at least.
        most_shift: What S / U may be at most.
    """
    variance, shift = own_variance_and_shift(feature_map, records)
    return len(records) == 0 or (variance >= least_variance and shift <= most_shift * variance)
