"""The real parts are one option away and behave the same: an Ethereum node, an IPFS daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runner.conftest import Qrun
from tests.runner.test_main_job import run, what_repeats


@pytest.mark.server
@pytest.mark.slow
def test_anvil_and_an_ipfs_daemon_give_the_same_cids(qrun: Qrun, tmp_path: Path, anvil: str, ipfs_daemon: str) -> None:
    import ipfshttpclient

    from contracts.ipfs import to_multiaddr

    here = run(qrun, "--out", str(tmp_path / "here"))
    there = run(qrun, "--out", str(tmp_path / "there"), "--chain", anvil, "--ipfs", ipfs_daemon)
    assert what_repeats(here) == what_repeats(there)
    assert (here["chain"]["kind"], there["chain"]["kind"]) == ("embedded", "json-rpc")
    assert there["chain"]["chain_id"] == 31337
    assert not (tmp_path / "there" / "chain.sqlite").exists()
    shown = json.loads(qrun("runs", "show", there["run"], "--on-chain", "--json").stdout)
    assert shown["settled_rounds"] == 2
    assert shown["nodes"][1]["address"] == there["nodes"][1]["address"]
    with ipfshttpclient.Client(to_multiaddr(ipfs_daemon)) as daemon:
        for cid in (there["final"]["cid"], there["feature_map"]["cid"], there["rounds"][1]["nodes"][2]["cid"]):
            assert daemon.cat(cid) == (tmp_path / "there" / "models").joinpath(_name(there, cid)).read_bytes()


def _name(result: dict[str, object], cid: str) -> str:
    if result["final"]["cid"] == cid:
        return "final.json"
    if result["feature_map"]["cid"] == cid:
        return "feature-map.json"
    return "round-002-node-02.json"
