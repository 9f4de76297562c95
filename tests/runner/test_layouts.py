"""Layouts besides the best one."""

from __future__ import annotations

import pytest

from backends.catalog import get_target
from circuits.errors import QrunError
from runner.compiled import generator_for
from runner.config import build_config


def test_layouts_have_no_qubit_in_common() -> None:
    device = get_target("fake_kyiv")
    found = [
        set(
            generator_for(
                build_config({"experiment": "nsl-kdd", "layout": k, "model": {"qubits": 4}}), device
            ).physical_qubits
        )
        for k in range(3)
    ]
    assert found[0] == set(
        generator_for(build_config({"experiment": "nsl-kdd", "model": {"qubits": 4}}), device).physical_qubits
    )
    assert not found[0] & found[1]
    assert not (found[0] | found[1]) & found[2]


def test_a_device_without_so_many_says_which_there_are() -> None:
    config = build_config({"experiment": "nsl-kdd", "backend": "fake_manila", "layout": 1, "model": {"qubits": 3}})
    with pytest.raises(QrunError, match="layout 1 of fake_manila") as error:
        generator_for(config, get_target("fake_manila"))
    assert "from 0 to 0" in error.value.hint
