"""A pytest plugin with the fixture `runtime_standin`.

pytest_plugins = ["backends.runtime.standin.fixture"]

def test_something(runtime_standin: StandIn) -> None:
    runtime_standin.settings.plan = "open"
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.runtime.standin import Settings, StandIn


@pytest.fixture
def runtime_standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in of its own for a test, with the environment set so that QiskitRuntimeService finds it."""
    with StandIn(Settings()) as service:
        monkeypatch.delenv("QISKIT_FUNCTIONS_EXPERIMENTAL", raising=False)
        for name, value in service.environment().items():
            monkeypatch.setenv(name, value)
        yield service
