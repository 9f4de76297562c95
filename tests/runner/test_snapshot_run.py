"""A run on a snapshot file: what the config and the result say of the file, and what happens when it changes."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import jsonschema
import pytest

from backends.catalog import save_target
from circuits.errors import QrunError, UsageError
from runner.options import config_from
from runner.prepare import prepare
from runner.progress import Warn
from runner.schema import schema
from tests.runner.conftest import SMALL, Qrun

SMALL_MODEL = {"qubits": 3, "reps": 1, "nodes": 3}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "manila.json"
    save_target("fake_manila", path)
    return path


def change(path: Path) -> None:
    document = json.loads(path.read_text())
    document["properties"]["qubits"][0][0]["value"] *= 1.5
    path.write_text(json.dumps(document))


def test_the_digest_is_of_the_content_not_of_the_path(file: Path, tmp_path: Path) -> None:
    config = config_from("nsl-kdd", {"backend": str(file)})
    assert config.backend == str(file)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.copy(file, tmp_path / "elsewhere" / "device.json"))
    again = config_from("nsl-kdd", {"backend": str(moved)})
    assert (again.digest, again.snapshot_sha256) == (config.digest, config.snapshot_sha256)
    change(moved)
    assert config_from("nsl-kdd", {"backend": str(moved)}).digest != config.digest
    packaged = config_from("nsl-kdd", {"backend": "fake_manila"})
    assert packaged.snapshot_sha256 is None
    assert packaged.digest != config.digest


def test_a_config_may_demand_a_content(file: Path) -> None:
    sha = config_from("nsl-kdd", {"backend": str(file)}).snapshot_sha256
    assert config_from("nsl-kdd", {"backend": str(file), "snapshot_sha256": sha}).snapshot_sha256 == sha
    with pytest.raises(UsageError, match=r"snapshot_sha256 = 000000000000\.\.\., but .*manila\.json has"):
        config_from("nsl-kdd", {"backend": str(file), "snapshot_sha256": "0" * 64})
    with pytest.raises(UsageError, match="fake_manila is no snapshot file"):
        config_from("nsl-kdd", {"backend": "fake_manila", "snapshot_sha256": sha})
    with pytest.raises(UsageError, match="snapshot_sha256 = 'abc'"):
        config_from("nsl-kdd", {"backend": str(file), "snapshot_sha256": "abc"})


def test_a_changed_file_is_not_the_runs(file: Path) -> None:
    config = config_from("nsl-kdd", {"backend": str(file), **SMALL_MODEL})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare(config, Warn()).target.snapshot_sha256 == config.snapshot_sha256
    change(file)
    with pytest.raises(QrunError, match=r"is not the snapshot file that this run is defined by.*Put that file back"):
        prepare(config, Warn())


def test_what_the_calibration_lacks_is_told_before_the_run(file: Path) -> None:
    document = json.loads(file.read_text())
    for qubit in document["properties"]["qubits"]:
        qubit[:] = [figure for figure in qubit if figure["name"] != "T2"]
    file.write_text(json.dumps(document))
    config = config_from("nsl-kdd", {"backend": str(file), **SMALL_MODEL})
    with pytest.warns(UserWarning, match=r"Calibration: qubit \d has no T2 in the calibration"):
        prepare(config, Warn())


def test_saving_and_showing(qrun: Qrun, tmp_path: Path) -> None:
    path = tmp_path / "lima.json"
    saved = json.loads(qrun("backends", "save", "lima", str(path), "--json").stdout)
    assert (saved["name"], len(saved["sha256"]), path.exists()) == ("fake_lima", 64, True)
    shown = json.loads(qrun("backends", "show", str(path), "--json").stdout)
    assert (shown["name"], shown["kind"], shown["qubits"]) == ("fake_lima", "snapshot", 5)
    for args, code, says in (
        (("save", "lima", str(path)), 2, "--force"),
        (("save", "ideal", str(tmp_path / "i.json")), 2, "no calibration"),
        (("show", str(tmp_path / "gone.json")), 2, "there is no file"),
    ):
        done = qrun("backends", *args)
        assert done.returncode == code
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    path.write_text('{"format": "qrun-snapshot-1"}')
    done = qrun("experiment", "nsl-kdd", *SMALL[:-2], "--backend", str(path))
    assert (done.returncode, "name has to be a plain name" in done.stderr) == (1, True)


@pytest.mark.slow
def test_a_run_on_a_file_is_traced_and_resumed_on_the_same_content_only(qrun: Qrun, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = qrun("experiment", "nsl-kdd", *SMALL[:-2], "--backend", str(file), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    jsonschema.validate(result, schema())
    sha = result["backend"]["snapshot_sha256"]
    assert sha == result["config"]["snapshot_sha256"]
    assert (result["backend"]["name"], result["backend"]["calibration_date"][:4]) == ("fake_manila", "2024")
    (out / "result.json").unlink()
    kept = file.read_bytes()
    change(file)
    refused = qrun("runs", "resume", result["run"])
    assert (refused.returncode, "is not the snapshot file" in refused.stderr) == (1, True)
    file.unlink()
    refused = qrun("runs", "resume", result["run"])
    assert (refused.returncode, "there is no file" in refused.stderr) == (2, True)
    file.write_bytes(kept)
    resumed = qrun("runs", "resume", result["run"], "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["final"] == result["final"]
