"""Tests on IBM's own service: only for whoever has an account, and only where they are asked for in so many words.

    pytest -m hardware tests/hardware

An account alone is not enough: nobody is to pay for having run all tests.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip before any fixture is made, unless the expression after -m is the marker's name and nothing else."""
    from backends.runtime.account import available

    if item.config.getoption("markexpr").strip() != "hardware":
        pytest.skip("takes QPU seconds of a real account: asked for by `-m hardware` alone")
    if not available():
        pytest.skip("no account at IBM Quantum is known here: `qrun login`, or QISKIT_IBM_TOKEN")
