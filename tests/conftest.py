"""What all tests share: one thread, the data folder, the servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import anvil, ipfs_daemon, ipfs_node

# No example is timed: a busy machine is no failure. Else as it was: hypothesis has a profile of its own for CI.
settings.register_profile("qrun", settings(deadline=None))
settings.load_profile("qrun")

# Before any test imports torch or numpy: the tensors are small, and the machines of the tests have few cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "QISKIT_PARALLEL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("QISKIT_PARALLEL", "FALSE")

__all__ = ["anvil", "data_dir", "ipfs_daemon", "ipfs_node"]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the official NSL-KDD text files; skips where QRUN_DATA does not lead to one."""
    named = os.environ.get("QRUN_DATA")
    if not named:
        pytest.skip("QRUN_DATA is not set: no official NSL-KDD files")
    for folder in (Path(named), Path(named) / "nsl-kdd"):
        if (folder / "KDDTest+.txt").is_file():
            return folder
    pytest.skip(f"QRUN_DATA={named}: no KDDTest+.txt there")


LONG = (
    "tests/test_hardware_page.py",
    "tests/test_wheel.py",
    "tests/runner/test_killed_federation.py",
    "tests/runner/chaos/",
)
"""Files with the longest tests: begun with, so that none is still running when all else is done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first; a file stays together, as its tests share what is dear to make."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
