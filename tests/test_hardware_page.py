"""docs/hardware.md: every command of the page, in its order, against a stand-in for the service on the open plan.

What the page prints under a command has to be printed by it, line for line, and its table has to be what
`qrun estimate` says. Metrics are an example there, and are not compared.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from backends.runtime.standin import Settings, StandIn
from runner.cli import app
from runner.view_devices import duration
from tests.preloaded import Preloaded, preloaded

PAGE = Path(__file__).resolve().parent.parent / "docs" / "hardware.md"
WITHOUT = "1. Without an account"
FEWER = "rounds = 2\n[model]\nsteps_per_epoch = 4\n"
"""Appended to the commands that run: fewer steps on the twin, so that the test takes a minute or two. What goes to the
device is whole, and everything that only estimates has the default sizes.
"""

ACCOUNT = ("QISKIT_IBM_", "IAM_URL", "GLOBAL_")


@dataclass
class Command:
    """A command of the page: the heading that it stands under, and the lines that are shown below it."""

    heading: str
    words: str
    shown: list[str] = field(default_factory=list)


def commands(text: str) -> list[Command]:
    """The commands of all console blocks, in order."""
    heading, inside, found = "", False, list[Command]()
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif not inside and line.startswith("#"):
            heading = line.lstrip("# ")
        elif inside and line.startswith("$ "):
            found.append(Command(heading, line[2:]))
        elif inside and line.strip():
            found[-1].shown.append(line.strip())
    return found


FIGURES = r"0\.\d{4}"
TELLING = {
    "backends rank nsl-kdd --backend fake_kyiv": [r"fake_fez: estimated fidelity 0\.\d+"],
    "estimate nsl-kdd --backend fake_torino": [r"on the device", r"trained on the twin", r"IBM's own formula"],
    "experiment nsl-kdd --train-on twin --run-on fake_torino": [
        r"Final aggregate on fake_torino, local testing mode: 256 samples of 1024 shots",
        rf"device, recalibrated +{FIGURES}",
        r"jobs +3, mode local \w+; 0\.0 QPU seconds",
    ],
    "doctor --live": [r"answers; 2 of 2 devices run jobs", r"600 of 600 QPU seconds"],
    "backends list --live": [r"ibm_torino +133 +online", r"ibm_kyiv +127 +online"],
    "backends rank nsl-kdd --live": [r"ibm_kyiv: estimated fidelity 0\.\d+"],
    "estimate nsl-kdd --train-on twin --run-on ibm_torino": [r"all +3 +256 +262,144 +72\.8 s"],
    "experiment nsl-kdd --train-on twin --run-on ibm_torino --dry-run": [r"all +3 +256 +262,144 +72\.8 s"],
    "experiment nsl-kdd --train-on twin --run-on ibm_torino --max-qpu-seconds 300": [
        r"Final aggregate on ibm_torino: 256 samples of 1024 shots",
        rf"twin, same latents +{FIGURES}",
        rf"device, recalibrated +{FIGURES}",
        r"ibm_torino differs from the exact twin by",
        r"jobs +3, mode batch; 7\d\.\d QPU seconds",
    ],
    "experiment nsl-kdd --train-on twin --run-on ibm_torino --seed 1 --max-qpu-seconds 300 --detach": [
        r"sent 3 job\(s\): .+ Go on with: qrun runs resume nsl-kdd-[0-9a-f]+"
    ],
    "jobs list": [r"sent +nsl-kdd-[0-9a-f]+ +device, round 2, node 2 +ibm_torino +batch +-"],
    "runs resume RUN": [r"Final aggregate on ibm_torino: 256 samples", r"jobs +3, mode batch; 7\d\.\d QPU seconds"],
    "verify RUN": [r"jobs +\d+ +- ", r"Nothing is false"],
    "estimate nsl-kdd --train-on twin --run-on ibm_torino --fine-tune 2 --shots 256": [r"all +9 +832"],
}
"""By the longest beginning of a command: what stdout must have. A command of the page that is not here fails the test.
"""


def telling(words: str) -> list[str]:
    """What the output of `qrun ...` must have."""
    rest = words.removeprefix("qrun ")
    return TELLING[max((start for start in TELLING if rest.startswith(start)), key=len)]


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(Settings(devices=("fake_torino", "fake_kyiv"), plan="open")) as made:
        yield made


def nobody(home: Path) -> dict[str, str]:
    """The environment of somebody who has no account."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QRUN_", *ACCOUNT)) or k == "QRUN_DATA"}
    return {**kept, "HOME": str(home), "QRUN_HOME": str(home / "qrun"), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Preloaded]:
    """What the commands are forked from: with the imports, and with the stranger's HOME."""
    with preloaded(nobody(tmp_path)) as made:
        yield made


@dataclass
class Stranger:
    """Somebody who types what the page says, in a home of their own."""

    home: Path
    service: StandIn
    loaded: Preloaded
    said: list[str] = field(default_factory=list)
    run: str = "no-run-yet"

    def environment(self, heading: str) -> dict[str, str]:
        account = {} if heading == WITHOUT else self.service.environment()
        return {**nobody(self.home), **account}

    def types(self, command: Command) -> str:
        """Run a command; its stdout."""
        words = shlex.split(command.words.replace("RUN", self.run))
        assert words.pop(0) == "qrun"
        if words[0] == "experiment" and "--dry-run" not in words:
            words += ["--config", str(self.home / "fewer.toml")]
        done = self.loaded.run(*words, env=self.environment(command.heading), timeout=300)
        assert done.returncode == 0, f"{command.words}: {done.stdout}{done.stderr}"
        self.said += [done.stdout, done.stderr]
        if words[0] == "experiment" and (named := re.findall(r"\bnsl-kdd-[0-9a-f]{8}\b", done.stdout)):
            self.run = named[-1]
        return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_page(service: StandIn, loaded: Preloaded, tmp_path: Path) -> None:
    (tmp_path / "fewer.toml").write_text(FEWER)
    stranger = Stranger(tmp_path, service, loaded)
    for command in commands(PAGE.read_text(encoding="utf-8")):
        if "--detach" in command.words:
            service.hold()  # a queue that is long
        if command.words.startswith("qrun runs resume"):
            service.release()
        out = stranger.types(command)
        for pattern in telling(command.words):
            assert re.search(pattern, out), f"{command.words}: no {pattern!r} in\n{out}"
        lines = {line.strip() for line in out.splitlines()}
        for line in command.shown:
            assert line in lines, f"{command.words}: the page shows {line!r}, and it says\n{out}"

    # Each job of the ledgers was accepted once, and nothing else was; the bound and the plan were kept.
    listed = json.loads(stranger.types(Command("", "qrun jobs list --json")))
    sent = [job for job in listed if not job["local"]]
    accepted = service.accepted()
    assert len(sent) == len(accepted) == 6
    assert {job["job_id"] for job in sent} == {job.job_id for job in accepted}
    assert {job["state"] for job in sent} == {"done"}
    tags = [tag for job in accepted for tag in job.tags if re.fullmatch(r"qrun-[0-9a-f-]{36}", tag)]
    assert sorted(tags) == sorted(job["tag"] for job in sent)
    assert len(set(tags)) == len(tags)
    for run in {job["run"] for job in sent}:
        assert sum(job["qpu_seconds"] for job in sent if job["run"] == run) <= 300
    # The token is in no file, and in nothing that was said.
    token = service.settings.token
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "result.json" for path in files)
    for path in files:
        assert token.encode() not in path.read_bytes(), path
    assert token not in "".join(stranger.said)


def test_the_page_has_the_commands_that_are_looked_at() -> None:
    found = commands(PAGE.read_text(encoding="utf-8"))
    assert {words for command in found for words in [command.words.partition(" ")[0]]} == {"qrun"}
    assert found[0].heading == WITHOUT
    starts = [max((s for s in TELLING if c.words.removeprefix("qrun ").startswith(s)), key=len) for c in found]
    assert sorted(starts) == sorted(TELLING), "a command is not on the page, or is looked at twice"


def estimated(*options: str) -> list[dict[str, Any]]:
    """What `qrun estimate nsl-kdd` says of these options."""
    done = CliRunner().invoke(app, ["estimate", "nsl-kdd", *options, "--json"])
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["estimates"]
    return found


def test_its_table_is_what_the_estimate_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path))
    rows = re.findall(r"^\| .*: `(--[^`]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 4
    for options, time, share in rows:
        device = [] if "--run-on" in options else ["--backend", "fake_torino"]
        (found,) = estimated(*options.split(), *device)
        part = found["plan"]["share"]
        assert time == duration(found["total"]["qpu_seconds"]), options
        assert share == (f"{part:.1%}" if part < 2 else f"{part:.1f} times"), options


def test_the_figures_in_its_text_are_those_of_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRUN_HOME", str(tmp_path))
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    direct, after = estimated("--backend", "fake_torino")
    training = direct["stages"][0]
    assert f"is {training['circuits'] // training['jobs']} circuits" in text
    assert 25 < training["qpu_seconds"] / training["jobs"] < 35
    assert "about half a minute of QPU time at 1024 shots" in text
    assert f"the default run has {training['jobs']} of them" in text
    assert f"generates {after['total']['circuits']} samples on the device" in text
    assert int(600 // after["total"]["qpu_seconds"]) == 8
    assert "Eight runs of the default size fit into ten minutes" in text
