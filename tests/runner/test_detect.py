"""`qrun detect`: what a run measured comes out again, flow by flow; whatever else comes in does no harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from circuits.errors import QrunError, UsageError
from experiments.base import Study, find
from experiments.datasets.parse import to_text
from runner.cli import app
from runner.detect import Model, Tally, load, run, threshold_of
from runner.run_folder import read_manifest
from runner.seeds import derive
from tests.experiments.datasets.support import lines
from tests.runner.conftest import environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    import qrun

    folder = tmp_path_factory.mktemp("detect") / "run"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("QRUN_HOME", str(folder.parent / "home"))
        small: dict[str, Any] = {"qubits": 3, "reps": 1, "nodes": 3, "rounds": 1, "steps_per_epoch": 10}
        result = qrun.run("nsl-kdd", out=folder, backend="fake_manila", **small)
    return folder, result


@pytest.fixture(scope="module")
def model(played: tuple[Path, dict[str, Any]]) -> Model:
    return load(str(played[0]))


@pytest.fixture(scope="module")
def study(played: tuple[Path, dict[str, Any]]) -> Study:
    config, _ = read_manifest(played[0])
    return find("nsl-kdd").load(
        config.data,
        nodes=config.nodes,
        seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
        folder=None,
        notify=lambda text: None,
    )


def source(chunks: Iterable[bytes]) -> Callable[[], bytes]:
    left = iter(chunk for chunk in chunks if chunk)
    return lambda: next(left, b"")


def score(model: Model, data: bytes, threshold: str = "label-free") -> tuple[list[dict[str, Any]], Tally, str]:
    out: list[str] = []
    said: list[str] = []
    chunks = (data[i : i + 70_000] for i in range(0, len(data), 70_000))
    edge = threshold_of(model, threshold)
    *_, tally = run(model, edge, source(chunks), form="json", write=out.append, tell=said.append)
    return [json.loads(line) for line in "".join(out).splitlines()], tally, "".join(said)


@pytest.mark.parametrize("part", ["holdout", "test"])
@pytest.mark.parametrize("threshold", ["label_free", "validated"])
def test_what_the_run_measured_comes_out_again(
    played: tuple[Path, dict[str, Any]], model: Model, study: Study, part: str, threshold: str
) -> None:
    records = study.holdout if part == "holdout" else study.test
    assert records is not None
    found, tally, said = score(model, to_text(records).encode(), threshold)
    assert said == ""
    assert (tally.flows, tally.malformed, len(found)) == (len(records), 0, len(records))
    called = np.array([row["verdict"] == "attack" for row in found])
    figures = played[1]["detection"]["parts"][part][threshold]
    assert called[records.is_attack].mean() == pytest.approx(figures["recall"], abs=1e-3)
    assert called[~records.is_attack].mean() == pytest.approx(figures["false_positive_rate"], abs=1e-3)
    chances = np.array([row["probability"] for row in found])
    scores = np.array([row["score"] for row in found])
    assert ((chances > 0) & (chances < 1)).all()
    assert (np.diff(chances[np.argsort(scores, kind="stable")]) >= 0).all()


junk = st.one_of(st.binary(max_size=80), st.sampled_from(lines()).map(str.encode))


@given(parts=st.lists(junk, max_size=8))
def test_no_input_stops_it(model: Model, parts: list[bytes]) -> None:
    data = b"\n".join(parts)
    found, tally, said = score(model, data)
    assert len(found) == tally.flows
    assert said.count("\n") == tally.malformed
    told = sorted([row["line"] for row in found] + [int(line.split()[1].rstrip(":")) for line in said.splitlines()])
    assert told == [k for k, line in enumerate(data.split(b"\n"), 1) if line.strip(b"\r ")]


def call(*options: str, input_: bytes = b"", home: Path | None = None) -> Any:
    return CliRunner().invoke(app, ["detect", *options], input=input_)


def command(folder: Path, *options: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "runner.cli", "detect", "--model", str(folder), *options],
        input=data,
        capture_output=True,
        check=False,
        timeout=300,
        env=environment(folder.parent / "home"),
    )


def test_a_file_is_scored_and_what_is_malformed_is_told(played: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = played[0]
    file = tmp_path / "flows.csv"
    unlabelled = ",".join(lines()[1].split(",")[:41])
    file.write_bytes(f"{lines()[0]}\na,b\n{unlabelled}\n".encode() + b"\xff\x00\n")
    done = command(folder, "--input", str(file), "--csv")
    assert done.returncode == 0, done.stderr
    told = done.stdout.decode().splitlines()
    assert told[0] == "line,score,probability,verdict"
    assert [row.split(",")[0] for row in told[1:]] == ["1", "3"]
    said = done.stderr.decode().splitlines()
    assert said[:2] == [
        "line 2: it has 2 columns; 41, 42 or 43 are expected",
        "line 4: byte 0xff stands where ASCII text is expected",
    ]
    assert said[-1].endswith("2 malformed lines skipped.")
    nothing = command(folder, data=b"a,b,c\n")
    assert nothing.returncode == 1
    assert b"no line of the input is a flow" in nothing.stderr
    empty = command(folder, "--json")
    assert (empty.returncode, empty.stdout) == (0, b"")
    assert b"0 flows scored" in empty.stderr


def test_flows_are_scored_as_they_come(played: tuple[Path, dict[str, Any]]) -> None:
    folder = played[0]
    with subprocess.Popen(
        [sys.executable, "-m", "runner.cli", "detect", "--model", str(folder), "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(folder.parent / "home"),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in (1, 2):
            process.stdin.write(lines()[number].encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number  # before more is sent
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--model", "no-such-run"], 2, "no run 'no-such-run'"),
        (["--model", "RUN", "--threshold", "best"], 2, "there are label-free and validated"),
        (["--model", "RUN", "--csv", "--json"], 2, "name two forms"),
        (["--model", "RUN", "--input", "/nowhere/at/all"], 2, "No such file"),
        (["--model", "RUN", "--input", "/"], 1, "Is a directory"),
        (["--model", "RUN", "--input", "a\0b"], 2, "null byte"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    played: tuple[Path, dict[str, Any]], options: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = played[0]
    monkeypatch.setenv("QRUN_HOME", str(folder.parent / "other"))
    done = call(*(str(folder) if o == "RUN" else o for o in options))
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert "internal error" not in done.stderr


def test_a_folder_that_was_changed_is_refused(played: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(played[0], tmp_path / "run"))
    result = json.loads((folder / "result.json").read_text())
    block = next((folder / "blocks").rglob(result["detection"]["detector_cid"] + "*"), None)

    def changed(**detection: Any) -> None:
        body = {**result, "detection": {**result["detection"], **detection}}
        (folder / "result.json").write_text(json.dumps(body))

    changed(detector_cid=result["final"]["cid"])
    with pytest.raises(QrunError, match="the detector file is refused"):
        load(str(folder))
    (folder / "result.json").write_text(
        json.dumps({**result, "final": {**result["final"], "cid": result["nodes"][0]["map_tx"]}})
    )
    with pytest.raises(QrunError, match="of another run or model"):
        load(str(folder))
    (folder / "result.json").write_text(
        json.dumps({k: v for k, v in {**result, "format": "qrun-result/3"}.items() if k != "detection"})
    )
    with pytest.raises(QrunError, match="kept no detector"):
        load(str(folder))
    changed()
    if block is not None:
        os.truncate(block, 10)
        with pytest.raises(QrunError, match="damaged"):
            load(str(folder))
    (folder / "result.json").unlink()
    with pytest.raises(QrunError, match="is not finished"):
        load(str(folder))


def test_unknown_thresholds_are_bad_usage(model: Model) -> None:
    with pytest.raises(UsageError, match="label-free and validated"):
        threshold_of(model, "0.5")
    assert threshold_of(model, "label_free") == threshold_of(model, "Label-Free")
