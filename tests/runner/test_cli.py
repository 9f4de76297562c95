"""The command line: ten and more wrong inputs, each with its line and its exit code; results that are only results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runner.conftest import SMALL, Qrun, environment


def one_line(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """The process failed with this code, and its last line on stderr says what was wrong; no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    for text in said:
        assert text in line, done.stderr


WRONG = [
    (["--backend", "fake_kiev"], ["unknown backend 'fake_kiev'", "Did you mean fake_kyiv"]),
    (["--backend", "ibm_torino"], ["ibm_torino is a real device", "qrun login", "fake_torino"]),
    (["--backend", "fake_manila", "--qubits", "6"], ["6", "fake_manila", "5 qubits"]),
    (["--rounds", "0"], ["rounds = 0", "greater than or equal to 1"]),
    (["--nodes", "-3"], ["nodes = -3"]),
    (["--nodes", "5000"], ["nodes = 5000"]),
    (["--entanglement", "ring"], ["model.entanglement = 'ring'"]),
    (["--engine", "quantum"], ["engine = 'quantum'", "'twin', 'aer', 'qml' or 'runtime'"]),
    (["--shots", "0"], ["shots = 0"]),
    (["--device", "gpu"], ["device = 'gpu'", "'auto', 'cpu' or 'cuda'"]),
    (["--engine", "aer", "--idle-noise"], ["idle_noise", "--engine twin"]),
    (["--backend", "ideal", "--idle-noise"], ["--idle-noise", "ideal has no noise"]),
    (["--seed", "-1"], ["seed = -1"]),
    (["--aggregation", "vote"], ["federation.aggregation = 'vote'", "'median'"]),
    (["--signatures", "rsa"], ["federation.signatures = 'rsa'", "'secp256k1' or 'ml-dsa-65'"]),
    (["--partition", "dirichlet:0"], ["partition", "dirichlet:0.5"]),
    (["--partition", "even"], ["partition", "iid"]),
    (["--data", "/nowhere/at/all"], ["--data /nowhere/at/all"]),
    (["--chain", "127.0.0.1:8545"], ["--chain takes an http(s) URL"]),
    (["--chain", "user:hunter2@127.0.0.1:8545"], ["--chain takes an http(s) URL"]),
    (["--ipfs", "127.0.0.1:5001"], ["--ipfs takes a URL"]),
    (["--config", "/nowhere/run.toml"], ["/nowhere/run.toml", "No such file"]),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=lambda v: " ".join(v)[:40])
def test_a_wrong_option_is_bad_usage(qrun: Qrun, home: Path, options: list[str], said: list[str]) -> None:
    one_line(qrun("experiment", "nsl-kdd", *options), 2, *said)
    assert not list((home / "runs").glob("*")), "a mistake leaves no run behind"


def test_an_unknown_experiment_gets_a_suggestion(qrun: Qrun) -> None:
    one_line(qrun("experiment", "nslkdd"), 2, "unknown experiment 'nslkdd'", "Did you mean 'nsl-kdd'")


def test_an_unknown_key_in_the_config_gets_a_suggestion(qrun: Qrun, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[model]\nqubitz = 4\n")
    one_line(qrun("experiment", "nsl-kdd", "--config", str(file)), 2, "model.qubitz", "Did you mean 'qubits'")


def test_an_option_turns_off_what_the_file_turns_on(qrun: Qrun, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("idle_noise = true\n")
    options = ("--config", str(file), "--engine", "aer", "--data", "/nowhere/at/all")
    one_line(qrun("experiment", "nsl-kdd", *options), 2, "idle_noise", "--engine twin")
    one_line(qrun("experiment", "nsl-kdd", *options, "--no-idle-noise"), 2, "--data /nowhere/at/all")


def test_a_broken_data_file_is_named_with_line_and_column(qrun: Qrun, tmp_path: Path, data_dir: Path) -> None:
    source = next(p for p in (data_dir, data_dir / "nsl-kdd") if (p / "KDDTest+.txt").exists())
    for name in ("KDDTrain+_20Percent.txt", "KDDTest+.txt"):
        shutil.copy(source / name, tmp_path / name)
    path = tmp_path / "KDDTrain+_20Percent.txt"
    path.chmod(0o644)
    lines = path.read_text().splitlines(keepends=True)
    lines[99] = lines[99].replace(",", ",x", 1)
    path.write_text("".join(lines))
    done = qrun("experiment", "nsl-kdd", *SMALL, "--data", str(tmp_path))
    one_line(done, 1, "KDDTrain+_20Percent.txt", "line 100", "column 2")


def test_an_unreachable_chain_is_said_quickly_and_without_its_key(qrun: Qrun, home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.monotonic()
    done = qrun(
        "experiment", "nsl-kdd", *SMALL, "--chain", f"http://user:hunter2@127.0.0.1:{port}/v3/0123456789abcdef0123"
    )
    one_line(done, 1, "127.0.0.1")
    assert "hunter2" not in done.stderr
    assert "0123456789abcdef0123" not in done.stderr
    assert time.monotonic() - begin < 60
    assert not list((home / "runs").glob("*")), "nothing was acknowledged, nothing is left behind"


def test_an_unreachable_ipfs_daemon_is_said(qrun: Qrun) -> None:
    one_line(qrun("experiment", "nsl-kdd", *SMALL, "--ipfs", "/ip4/127.0.0.1/tcp/9/http"), 1, "IPFS")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "runner.cli", "backends", "list", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment(home),
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot write the output: No space left on device" in done.stderr


def test_a_terminal_that_knows_ascii_only(qrun: Qrun) -> None:
    done = qrun("backends", "show", "fake_manila", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "median T1, ?s" in done.stdout


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system: needs root")
@pytest.mark.slow
def test_a_full_disk_is_said_and_the_run_can_be_resumed(qrun: Qrun, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(small)], check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        done = qrun("experiment", "nsl-kdd", *SMALL, "--out", str(small / "run"))
        one_line(done, 1, "full", "--out")
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        runs = json.loads(qrun("runs", "list", "--json").stdout)
        if runs:  # Something was acknowledged before the disk was full: it goes on from there.
            resumed = qrun("runs", "resume", runs[0]["run"], "--json")
            assert resumed.returncode == 0, resumed.stderr
            assert json.loads(resumed.stdout)["metrics"]["test"]["auroc"] > 0.5
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_folder_without_permission_or_in_use(qrun: Qrun, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "thesis.tex").write_text("years of work")
    one_line(qrun("experiment", "nsl-kdd", *SMALL, "--out", str(busy)), 2, "not an empty folder")
    assert (busy / "thesis.tex").read_text() == "years of work"


def test_unknown_runs(qrun: Qrun) -> None:
    for command in (["show"], ["resume"], ["rm", "--yes"]):
        one_line(qrun("runs", *command, "nothing"), 2, "no run 'nothing'", "qrun runs list")


def test_a_data_folder_that_is_none_is_said(qrun: Qrun) -> None:
    one_line(qrun("experiment", "nsl-kdd", *SMALL, QRUN_DATA="/nowhere/at/all"), 2, "QRUN_DATA=/nowhere/at/all")


def test_a_partition_is_checked_before_anything_is_loaded(qrun: Qrun) -> None:
    begin = time.monotonic()
    one_line(qrun("experiment", "nsl-kdd", "--partition", "dirichlet:nan"), 2, "dirichlet:nan")
    # Importing torch alone takes longer on a busy machine.
    assert time.monotonic() - begin < 20


def test_experiments_of_others(qrun: Qrun, tmp_path: Path) -> None:
    """One that works, one whose data is broken, one that cannot be loaded: each is told apart by name."""
    (tmp_path / "other.py").write_text(
        "from experiments.nsl_kdd import NslKdd\n"
        "class Mine(NslKdd):\n"
        "    name, summary = 'mine', 'another experiment'\n"
        "    def defaults(self): return {'backend': 'ideal', 'rounds': 1, 'model': {'qubits': 2, 'reps': 1}}\n"
        "class Broken(Mine):\n"
        "    def load(self, *args, **kwargs): raise ValueError('column 3 is odd')\n"
    )
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[qrun.experiments]\nmine = other:Mine\nbroken = other:Broken\nlost = nowhere:Nothing\n"
    )
    env = {"PYTHONPATH": str(tmp_path)}
    listed = {e["name"]: e["summary"] for e in json.loads(qrun("experiment", "list", "--json", **env).stdout)}
    assert listed["mine"] == "another experiment"
    assert listed["nsl-kdd"]
    assert "cannot be loaded" in listed["lost"]
    one_line(qrun("experiment", "lost", **env), 1, "'lost' (nowhere:Nothing) cannot be loaded")
    one_line(qrun("experiment", "broken", **env), 1, "'broken' could not load its data: ValueError: column 3 is odd")
    done = qrun("experiment", "mine", "--no-test", "--nodes", "1", "--json", **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["backend"] == "ideal"


def test_unknown_options_and_commands_exit_with_2(qrun: Qrun) -> None:
    assert qrun("experiment", "nsl-kdd", "--roundz", "3").returncode == 2
    assert qrun("experimentt").returncode == 2
    assert qrun("experiment", "nsl-kdd", "--rounds", "three").returncode == 2


def test_help_loads_nothing_heavy(home: Path) -> None:
    code = (
        "import sys\nfrom runner.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'qiskit', 'web3', 'numpy', 'pydantic', 'matplotlib'}\n"
        "print(sorted(set(sys.modules) & heavy), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(home)
    )
    assert done.stderr.strip() == "[]"
    assert "experiment" in done.stdout


def test_lists(qrun: Qrun) -> None:
    assert [e["name"] for e in json.loads(qrun("experiment", "list", "--json").stdout)] == ["nsl-kdd"]
    assert "nsl-kdd" in qrun("experiment", "list").stdout
    backends = json.loads(qrun("backends", "list", "--json").stdout)
    assert len(backends) > 60
    shown = json.loads(qrun("backends", "show", "fake_kyiv", "--json").stdout)
    assert (shown["qubits"], shown["two_qubit_gate"], shown["calibration_date"][:10]) == (127, "ecr", "2025-02-26")
    assert "ecr" in qrun("backends", "show", "fake_kyiv").stdout
    assert json.loads(qrun("runs", "list", "--json").stdout) == []


def test_completion_is_offered(qrun: Qrun) -> None:
    done = qrun(_QRUN_COMPLETE="complete_bash", COMP_WORDS="qrun backends show fake_ky", COMP_CWORD="3")
    assert done.stdout.split() == ["fake_kyiv", "fake_kyoto"]
    names = qrun(_QRUN_COMPLETE="complete_bash", COMP_WORDS="qrun experiment ns", COMP_CWORD="2")
    assert names.stdout.split() == ["nsl-kdd"]
    assert "--show-completion" in qrun("--help").stdout


def test_doctor_says_what_is_missing_and_keeps_secrets(qrun: Qrun) -> None:
    done = qrun("doctor", "--json", QISKIT_IBM_TOKEN="hunter2hunter2")
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert checks["embedded chain"]["state"] == "ok"
    assert checks["IBM Quantum token"]["found"].startswith("present")
    assert "hunter2" not in done.stdout + done.stderr
    without = {c["name"]: c for c in json.loads(qrun("doctor", "--json", HOME="/nonexistent").stdout)}
    assert without["IBM Quantum token"]["state"] == "optional"
    assert "QISKIT_IBM_TOKEN" in without["IBM Quantum token"]["mend"]
    nowhere = qrun("doctor", "--json", "--data", "/nowhere")
    assert nowhere.returncode == 1
    assert {c["name"]: c for c in json.loads(nowhere.stdout)}["NSL-KDD"]["state"] == "broken"
    dead = qrun("doctor", "--json", "--chain", "http://127.0.0.1:9")
    assert dead.returncode == 1
    assert {c["name"]: c for c in json.loads(dead.stdout)}["Ethereum node"]["state"] == "broken"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_end_shows_no_traceback(home: Path, number: signal.Signals) -> None:
    """As a second one while the first ends a command: `timeout` sends two."""
    code = (
        "import atexit, os, sys\n"
        f"atexit.register(os.kill, os.getpid(), {int(number)})\n"
        "sys.argv = ['qrun', '--version']\n"
        "from runner.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout.strip()
