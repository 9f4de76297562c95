"""Nodes vote for a feature map that describes their records; one without a quorum ends the run before training."""

from __future__ import annotations

from pathlib import Path

from tests.runner.conftest import SMALL, Qrun


def test_a_map_that_describes_too_few_nodes_ends_the_run_and_says_what_to_do(qrun: Qrun, tmp_path: Path) -> None:
    config = tmp_path / "strict.toml"
    config.write_text("[federation]\nmap_variance = 5.0\n")
    done = qrun("experiment", "nsl-kdd", *SMALL, "--config", str(config), "--no-test")
    assert done.returncode == 1
    line = done.stderr.strip().splitlines()[-1]
    assert "does not describe the records of 3 nodes" in line
    assert "finds no quorum" in line
    assert "federation.map_variance = 0" in line
    assert "Traceback" not in done.stderr
