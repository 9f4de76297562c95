"""What the contract costs: the committed table is the measured one, and keeps the bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.rounds import gas_budget
from tests.benchmarks import gas
from tests.benchmarks.rounds_cost import measure

ANNOUNCEMENTS = 8
"""Of a node in a run: two sums, with an attempt or so more where others were absent."""
PAGE = Path(__file__).parents[2] / "docs" / "gas.md"


def within_bounds(costs: gas.Costs) -> None:
    assert max(costs.submit[1] + costs.submit[2]) <= gas.MOST_SUBMISSION
    for r in (1, 2):
        assert costs.grades(r) <= costs.grades_bound
    assert max(page for pages in costs.settle.values() for page in pages) < gas.BLOCK / 2
    # Whoever does all that one account can do in a task, with a quarter more gas at hand for each settlement.
    own = costs.register[0] + costs.agree[0] + max(costs.conclude) + max(costs.withdraw) + sum(costs.rollback[:1])
    own += ANNOUNCEMENTS * max(costs.announce)
    for r in (1, 2):
        own += costs.submit[r][0] + costs.grades(r) + round(1.25 * sum(costs.settle[r]))
    assert max(own, costs.opening) < gas_budget(costs.nodes, 2)


def test_small_tasks_keep_the_bounds() -> None:
    within_bounds(gas.play(3))
    within_bounds(gas.play(3, windows=True))


@pytest.mark.slow
def test_the_committed_table_is_the_measured_one() -> None:
    measured = [gas.play(nodes) for nodes in gas.SIZES]
    for costs in measured:
        within_bounds(costs)
    windows = gas.play(gas.SIZES[1], windows=True)
    within_bounds(windows)
    page = gas.tables(measured, gas.play(gas.SIZES[1], open_to_all=True), windows)
    assert page == PAGE.read_text(), "run `python -m tests.benchmarks.gas > docs/gas.md`"


@pytest.mark.slow
def test_ten_nodes_and_ten_rounds_cost_less_than_15_seconds() -> None:
    cost = measure(nodes=10, rounds=10)
    assert cost.transactions == 1 + 10 + 10 + 10 * (10 + 10 + 10 + 1) + 10
    assert cost.chain_seconds + cost.store_seconds < 15
    assert cost.read_seconds < 2
