from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.datasets.nsl_kdd import read
from experiments.datasets.schema import (
    ATTACKS,
    CATEGORICAL,
    COLUMNS,
    FAMILIES,
    FAMILY_OF,
    FIELDS,
    FLAGS,
    NUMERIC,
    PROTOCOLS,
    SERVICES,
    TEST_ONLY,
)


def test_sizes_are_those_of_nsl_kdd() -> None:
    assert (len(COLUMNS), len(NUMERIC), len(CATEGORICAL), len(FIELDS)) == (41, 38, 3, 43)
    assert [len(set(words)) for words in (PROTOCOLS, SERVICES, FLAGS, ATTACKS)] == [3, 70, 11, 40]
    assert len(set(FIELDS)) == 43
    assert ATTACKS[0] == "normal"
    assert len(TEST_ONLY) == 17
    assert set(ATTACKS) > TEST_ONLY


def test_real_files_keep_to_the_bounds_and_families(data_dir: Path) -> None:
    train, test = read(data_dir / "KDDTrain+_20Percent.txt"), read(data_dir / "KDDTest+.txt")
    for records in (train, test):
        assert np.all(records.numeric >= [column.minimum for column in NUMERIC])
        assert np.all(records.numeric <= [column.maximum for column in NUMERIC])
    assert not {ATTACKS[code] for code in np.unique(train.attack)} & TEST_ONLY
    families = [FAMILY_OF[ATTACKS[code]] for code in test.attack]
    # The figures that Tavallaee et al. print for KDDTest+.
    assert [families.count(family) for family in FAMILIES] == [9711, 7458, 2421, 2754, 200]
