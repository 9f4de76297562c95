"""The static analyser finds nothing in the contract that is not explained; see tests/contracts/slither.py."""

from __future__ import annotations

import pytest

from tests.contracts.slither import EXPLAINED, analyse, find


@pytest.mark.server
@pytest.mark.slow
def test_what_slither_finds_is_explained() -> None:
    slither = find()
    if slither is None:
        pytest.skip("no slither here: pip install slither-analyzer (elsewhere), and name it in SLITHER")
    found = analyse(slither)
    assert found, "slither has looked at nothing"
    assert [item for item in found if item[0] not in EXPLAINED or item[1] == "High"] == []
