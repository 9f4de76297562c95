"""What is compared, before anything is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.catalog import save_target
from circuits.errors import UsageError
from runner.compare.evaluation import profile_of
from runner.compare.grid import grid_of

FIVE = ["ideal", "fake_kyiv", "fake_sherbrooke", "fake_torino", "fake_fez"]


def test_the_command_of_the_readme_is_25_trainings() -> None:
    grid = grid_of("nsl-kdd", {}, backends=FIVE, stacks=["none", "readout", "zne"], seeds=5)
    jobs = grid.jobs()
    assert len(jobs) == 25
    assert sum(len(job.profiles) for job in jobs) == 5 * (1 + 4 * 3 + 4 * 3)
    assert {job.config.seed for job in jobs} == set(range(5))
    assert all(job.config.mitigation is None for job in jobs)


def test_training_with_mitigation_is_a_training_each() -> None:
    grid = grid_of("nsl-kdd", {}, backends=FIVE, stacks=["readout", "zne"], seeds=5, train_each=True)
    assert len(grid.jobs()) == 25 + 4 * 2 * 5


def test_ideal_is_the_reference_whether_it_is_named_or_not() -> None:
    named = grid_of("nsl-kdd", {}, backends=["ideal", "fake_kyiv"], seeds=2)
    unnamed = grid_of("nsl-kdd", {}, backends=["kyiv"], seeds=2)
    assert named.digest == unnamed.digest
    assert [point.label for point in named.points] == ["ideal", "fake_kyiv"]


@pytest.mark.parametrize(
    ("axis", "labels", "runs"),
    [
        (("noise", "0,1,2"), ["ideal", *(f"fake_kyiv, noise scale {f}" for f in (0, 1, 2))], 4),
        (("layout", "0,1"), ["ideal", "fake_kyiv, layout 0", "fake_kyiv, layout 1"], 3),
        (("shots", "exact,64"), ["ideal", "fake_kyiv, shots exact", "fake_kyiv, shots 64"], 3),
        (("reps", "2,1"), ["ideal, repetitions 1", "ideal, repetitions 2"], 4),
        (("qubits", "3,4"), ["ideal, qubits 3", "ideal, qubits 4"], 4),
    ],
)
def test_an_axis_varies_one_thing_and_each_point_has_its_reference(
    axis: tuple[str, str], labels: list[str], runs: int
) -> None:
    grid = grid_of("nsl-kdd", {}, backends=["fake_kyiv"], seeds=1, axis=axis)
    assert [p.label for p in grid.points][: len(labels)] == labels
    assert len(grid.jobs()) == runs
    for cell in grid.cells():
        reference = grid.reference(cell.point).config
        assert (reference.model.qubits, reference.model.reps) == (cell.run.model.qubits, cell.run.model.reps)
        if cell.question == "once":
            assert cell.run.backend == "ideal"
            there = profile_of(cell.profile)
            assert there == {**profile_of(cell.point.config), "mitigation": None}


def test_noise_scaled_once_is_the_device_itself() -> None:
    plain = grid_of("nsl-kdd", {}, backends=["fake_kyiv"], seeds=1)
    along = grid_of("nsl-kdd", {}, backends=["fake_kyiv"], seeds=1, axis=("noise", "1,2"))
    assert along.points[1].config.digest == plain.points[1].config.digest


def test_calibrations_are_snapshot_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    save_target("fake_manila", files[0])
    save_target("fake_lima", files[1])
    grid = grid_of("nsl-kdd", {"qubits": 3}, seeds=1, axis=("calibration", ",".join(map(str, files))))
    assert [p.label.split(",")[0] for p in grid.points] == ["ideal", "fake_manila", "fake_lima"]
    assert len(grid.jobs()) == 3


def test_options_of_a_technique_in_the_file_count_for_stacks_that_have_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[mitigation]\nstack = "zne"\nscale_factors = [1, 3]\n')
    grid = grid_of("nsl-kdd", {}, file=file, backends=["fake_kyiv"], stacks=["readout", "zne"], seeds=1)
    by = {cell.stack: cell.profile.mitigation for cell in grid.cells() if cell.point.label == "fake_kyiv"}
    assert by["none"] is None
    assert by["zne"] is not None
    assert by["zne"].scale_factors == (1.0, 3.0)
    assert by["readout"] is not None
    assert by["readout"].scale_factors is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"backends": ["fake_kyif"]}, "unknown backend 'fake_kyif'. Did you mean fake_kyiv"),
        ({"backends": ["ideal"]}, "nothing to compare with ideal"),
        ({"stacks": ["zn"]}, "zn"),
        ({"stacks": ["auto"]}, "auto is a choice"),
        ({"seeds": 0}, "1 to 1000"),
        ({"seeds": [-1]}, "0 or more"),
        ({"axis": ("noize", "0,1")}, "Did you mean 'noise'"),
        ({"axis": ("noise", "2")}, "two values or more"),
        ({"axis": ("noise", "0,11")}, "no factor from 0 to 10"),
        ({"axis": ("reps", "0,1")}, "no whole number"),
        ({"axis": ("qubits", "3,4"), "options": {"qubits": 5}}, "say the same thing"),
        ({"options": {"engine": "runtime"}}, "nothing is sent to a device"),
        ({"axis": ("calibration", "a.json,b.json"), "backends": ["fake_kyiv"]}, "by their snapshot files"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(asked: dict[str, Any], told: str) -> None:
    given = {"backends": ["fake_kyiv"], **asked}
    options = given.pop("options", {})
    if "axis" in given and "calibration" in given["axis"] and "backends" not in asked:
        given.pop("backends")
    with pytest.raises(UsageError) as error:
        grid_of("nsl-kdd", options, **given)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
