"""The main job end to end, small: the result keeps to its schema, repeats, and stands on the chain."""

from __future__ import annotations

import hashlib
import json
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contracts.cid import RAW, Cid, parse_cid
from runner.schema import schema
from tests.runner.conftest import SMALL, Qrun


def run(qrun: Qrun, *options: str, **env: str) -> dict[str, Any]:
    done = qrun("experiment", "nsl-kdd", *SMALL, *options, "--json", **env)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(result, schema())
    return result


Here = Callable[..., dict[str, Any]]


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """The same small run in this process, as Python users start it: without the seconds that a process takes."""
    import qrun as face

    monkeypatch.setenv("QRUN_HOME", str(home))

    def call(**options: Any) -> dict[str, Any]:
        small = {"qubits": 3, "reps": 1, "rounds": 1, "nodes": 1, "backend": "fake_manila", "test": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a user is told of: two nodes, stand-in data
            result = face.run("nsl-kdd", **{**small, **options})
        jsonschema.validate(result, schema())
        return result

    return call


def what_repeats(result: dict[str, Any]) -> dict[str, Any]:
    """All that the same config and seed must give again: CIDs, metrics, grades, settlements.

    Signatures and commitments come from keys that are never the same, seconds from the machine.
    """
    kept = {k: result[k] for k in ("config", "dataset", "backend", "feature_map", "final", "metrics", "spread")}
    own = ("tx", "commit_tx", "reveal_tx", "signature", "commitment", "resources")
    kept["rounds"] = [
        {
            **{k: r[k] for k in ("number", "base", "void", "absent", "aggregate")},
            "settlement": {k: v for k, v in r["settlement"].items() if k != "tx"},
            "nodes": [{k: v for k, v in n.items() if k not in own} for n in r["nodes"]],
        }
        for r in result["rounds"]
    ]
    return kept


@pytest.mark.slow
def test_the_same_seed_gives_the_same_cids_and_metrics(qrun: Qrun, home: Path, tmp_path: Path) -> None:
    first = run(qrun)
    second = run(qrun, "--out", str(tmp_path / "mine"))
    assert what_repeats(first) == what_repeats(second)
    assert first["nodes"][0]["address"] != second["nodes"][0]["address"], "keys never come from the seed"
    assert second["run"] == f"{first['run']}.2"
    other = run(qrun, "--seed", "1")
    assert other["final"]["cid"] != first["final"]["cid"]

    folder = tmp_path / "mine"
    assert json.loads((folder / "result.json").read_text()) == second
    assert (folder / "convergence.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((folder / "models").iterdir())) == 2 + 2 * 3
    assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
    assert json.loads((folder / "config.json").read_text())["config_digest"] == second["config_digest"]

    # No secret is in anything that is written for others to read.
    keys = json.loads((folder / "keys.json").read_text())
    secrets = [keys["opener"], *(v for n in keys["nodes"] for v in n.values())]
    for file in (f for f in folder.rglob("*") if f.is_file() and f.name != "keys.json"):
        content = file.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content
            assert bytes.fromhex(secret) not in content

    listed = json.loads(qrun("runs", "list", "--json").stdout)
    assert [r["run"] for r in listed] == [first["run"], second["run"], other["run"]]
    assert {r["state"] for r in listed} == {"finished"}
    shown = json.loads(qrun("runs", "show", second["run"], "--json").stdout)
    assert shown["result"] == second
    assert "Final aggregate" in qrun("runs", "show", second["run"]).stdout

    recorded = json.loads(qrun("runs", "show", second["run"], "--on-chain", "--json").stdout)
    assert recorded["config_digest"] == second["config_digest"]
    assert [[n["cid"] for n in r["nodes"]] for r in recorded["rounds"]] == [
        [n["cid"] for n in r["nodes"]] for r in second["rounds"]
    ]
    told = qrun("runs", "show", second["run"], "--on-chain").stdout
    assert second["rounds"][1]["nodes"][2]["tx"][:8] in told
    assert "Round 2 from round 1 (settled)" in told
    assert "its account" in told

    # A finished run is read, not played again; and removing takes its folder.
    assert json.loads(qrun("runs", "resume", second["run"], "--json").stdout) == second
    assert qrun("runs", "rm", second["run"], "--yes").returncode == 0
    assert not folder.exists()


@pytest.mark.slow
def test_every_round_stands_on_the_chain(qrun: Qrun, tmp_path: Path) -> None:
    from contracts.chain import connect
    from contracts.cid import cid_of
    from contracts.rounds import FederatedRounds
    from contracts.signatures import ModelStatement, check
    from contracts.store import BlockStore
    from runner.aggregate import aggregate
    from runner.update import Input, blocks_digest, parse_update

    folder = tmp_path / "run"
    result = run(qrun, "--out", str(folder))
    store = BlockStore(folder / "blocks")
    with connect(folder / "chain.sqlite", []) as chain:
        contract = FederatedRounds.attach(chain, result["chain"]["contract"])
        assert contract.settled_rounds() == contract.base() == result["final"]["round"] == 2
        nodes = contract.nodes()
        for round_ in result["rounds"]:
            number = round_["number"]
            on_chain = {s.node: s for s in contract.submissions(number)}
            for node in round_["nodes"]:
                i, submission = node["id"], on_chain[node["id"]]
                assert (submission.cid, submission.tx) == (node["cid"], node["tx"])
                assert submission.metrics == pytest.approx(node["metrics"], abs=1e-6)
                assert submission.resources == node["resources"]
                assert node["resources"]["seconds"] > 0
                assert node["resources"]["shots"] == 0, "the exact twin samples nothing"
                assert {str(k): v for k, v in contract.grades(number)[i].items()} == node["grades"]
                assert contract.commitments(number)[i].hex() == node["commitment"]
                statement = ModelStatement(
                    chain.chain_id, contract.address, bytes.fromhex(result["config_digest"]), number, i, node["cid"]
                )
                signature = store.get(node["signature"], max_bytes=20_000)
                check(signature, statement, address=nodes[i].address, signing_key=None)
            settled = contract.settlement(number)
            assert settled is not None
            assert [r / 100 for r in settled.reputation] == [n["reputation"] for n in round_["nodes"]]
            assert settled.tx == round_["settlement"]["tx"]
        # All that was sent, by kind, but for what came after the result.
        every = [e.tx for e in contract.entries() if e.name != "Concluded"]
        assert (
            result["chain"]["gas_used"] == sum(chain.gas_of(sorted(set(every)))) == sum(result["chain"]["gas"].values())
        )
        assert chain.head_number() == result["chain"]["head"] + 3
        assert all(chain.receipt(tx) for n in result["nodes"] for tx in (n["register_tx"], n["map_tx"]))
        # The file's bytes are those whose digest every node stated.
        report = hashlib.sha256((folder / "result.json").read_bytes()).digest()
        model = parse_cid(result["final"]["cid"]).digest
        assert contract.conclusions() == dict.fromkeys(range(3), (model, report))
    assert store.get(str(cid_of((folder / "result.json").read_bytes())), max_bytes=1 << 24)
    assert hashlib.sha256((folder / "config.json").read_bytes()).hexdigest() == result["manifest_sha256"]
    picture = hashlib.sha256((folder / "convergence.png").read_bytes()).hexdigest()
    assert result["artefacts"] == {"convergence.png": picture}
    # The config's digest resolves to the canonical config.
    config = store.get(str(Cid(RAW, bytes.fromhex(result["config_digest"]))), max_bytes=1 << 20)
    assert json.loads(config) == result["config"]

    # Anyone who has the published models computes the final aggregate again, bit for bit.
    final = parse_update(store.get(result["final"]["cid"], max_bytes=1 << 24))
    parts = [parse_update(store.get(i.cid, max_bytes=1 << 24)) for i in final.inputs]
    again = aggregate([p.blocks for p in parts], [i.weight for i in final.inputs])
    assert {k: v.tolist() for k, v in again.items()} == {k: v.tolist() for k, v in final.blocks.items()}
    assert final.start == blocks_digest(again)
    last = result["rounds"][-1]
    out = {*last["settlement"]["low"], *last["settlement"]["excluded"]}
    weights = [Input(n["cid"], round(100 * n["reputation"])) for n in last["nodes"] if n["id"] not in out]
    assert list(final.inputs) == [i for i in weights if i.weight > 0]


@pytest.mark.slow
def test_a_run_that_dies_while_it_concludes(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is what the first node stated, however often the run begins again."""
    import qrun as face
    from contracts.chain import connect
    from contracts.rounds import FederatedRounds
    from runner import play
    from runner.history import describe_runs

    monkeypatch.setenv("QRUN_HOME", str(home))
    folder = tmp_path / "run"
    conclude, write, calls = FederatedRounds.conclude, play.write_durably, []

    def dying(self: FederatedRounds, account: Any, model: bytes, report: bytes) -> Any:
        calls.append(report)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return conclude(self, account, model, report)

    def unwritten(path: Path, data: bytes) -> None:
        if path.name == "result.json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(FederatedRounds, "conclude", dying)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            face.run("nsl-kdd", qubits=2, reps=1, rounds=1, nodes=2, backend="ideal", test=False, out=folder)
        (name,) = [r["run"] for r in describe_runs()]
        with monkeypatch.context() as patch:
            patch.setattr(play, "write_durably", unwritten)
            with pytest.raises(KeyboardInterrupt):
                face.resume(name)
        assert not (folder / "result.json").exists()
        result = face.resume(name)
    data = (folder / "result.json").read_bytes()
    assert json.loads(data) == result
    assert set(calls) == {hashlib.sha256(data).digest()}
    with connect(folder / "chain.sqlite", []) as chain:
        contract = FederatedRounds.attach(chain, result["chain"]["contract"])
        assert {report for _, report in contract.conclusions().values()} == set(calls)
        assert chain.head_number() == result["chain"]["head"] + 2, "each node concludes once"


@pytest.mark.slow
def test_stdout_has_the_json_and_nothing_else_and_tables_otherwise(qrun: Qrun) -> None:
    done = qrun("experiment", "nsl-kdd", *SMALL, "--rounds", "1", "--no-test", "--json")
    result = json.loads(done.stdout)
    assert "KDDTest+.txt" not in result["dataset"]["sha256"], "the test file was left alone"
    assert result["dataset"]["records"]["test"] is None
    jsonschema.validate(result, schema())
    assert result["metrics"]["test"] is None
    assert result["metrics"]["holdout"]["auroc"] > 0.5
    assert "round 1, node 2, epoch 1: loss G" in done.stderr
    assert "round 1 settled" in done.stderr
    shown = qrun("experiment", "nsl-kdd", *SMALL, "--rounds", "1", "--no-test")
    assert "Round 1 (validation)" in shown.stdout
    assert "Final aggregate" in shown.stdout
    assert "\x1b[" not in shown.stdout + shown.stderr, "no colour where there is no terminal"


@pytest.mark.slow
def test_aer_samples_the_same_device(here: Here) -> None:
    result = here(engine="aer", shots=128)
    took = result["rounds"][0]["nodes"][0]["resources"]
    # SPSA: values and two shifted circuits for each of 32 latents, in each of 60 steps; and the samples that the model
    # is measured with.
    assert took["circuits"] == 60 * 3 * 32 + 512
    assert took["shots"] == 128 * took["circuits"]
    assert result["backend"]["engine"] == "aer"
    assert result["config"]["shots"] == 128
    assert result["backend"]["physical_qubits"] == here()["backend"]["physical_qubits"]


@pytest.mark.slow
def test_post_quantum_signatures_and_another_way_of_joining(here: Here) -> None:
    result = here(nodes=2, rounds=2, signatures="ml-dsa-65", aggregation="median")
    assert result["config"]["federation"]["signatures"] == "ml-dsa-65"
    assert all(len(n["signing_key"]) == 64 for n in result["nodes"])
    assert [n["fault"] for r in result["rounds"] for n in r["nodes"]] == [""] * 4


@pytest.mark.slow
def test_the_twin_samples_shots_and_lets_qubits_wait(here: Here) -> None:
    exact, sampled, waiting = here(device="cpu"), here(device="cpu", shots=256), here(device="cpu", idle_noise=True)
    assert what_repeats(sampled) == what_repeats(here(device="cpu", shots=256))
    assert (exact["backend"]["shots"], sampled["backend"]["shots"]) == (None, 256)
    assert (exact["backend"]["idle_noise"], waiting["backend"]["idle_noise"]) == (False, True)
    assert {r["backend"]["device"] for r in (exact, sampled, waiting)} == {"cpu"}
    assert len({r["final"]["cid"] for r in (exact, sampled, waiting)}) == 3


@pytest.mark.slow
def test_the_stand_in_says_so_everywhere(qrun: Qrun, tmp_path: Path) -> None:
    # An empty cache and no route out: what a laptop on a train has.
    env = {"QRUN_DATA": "", "XDG_CACHE_HOME": str(tmp_path / "cache"), "https_proxy": "http://127.0.0.1:9"}
    done = qrun("experiment", "nsl-kdd", *SMALL, "--rounds", "1", "--out", str(tmp_path / "run"), "--json", **env)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dataset"]["source"] == "stand-in"
    assert "Stand-in" in done.stderr
    jsonschema.validate(result, schema())
    from contracts.chain import connect
    from contracts.rounds import FederatedRounds

    with connect(tmp_path / "run" / "chain.sqlite", []) as chain:
        assert FederatedRounds.attach(chain, result["chain"]["contract"]).task.data_source == "stand-in"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"nodes": 1}, {"nodes": 2}, {"partition": "dirichlet:0.5", "nodes": 4}], ids=str)
def test_other_numbers_of_nodes(here: Here, options: dict[str, Any]) -> None:
    result = here(**options)
    assert len(result["nodes"]) == options["nodes"]
    assert sum(n["records"]["train"] for n in result["nodes"]) == pytest.approx(0.7 * 13_449, rel=0.02)


@pytest.mark.slow
def test_python_users_get_the_same(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import qrun as face

    monkeypatch.setenv("QRUN_HOME", str(home))
    result = face.run("nsl-kdd", backend="ideal", rounds=1, nodes=2, qubits=2, reps=1, out=tmp_path / "a")
    jsonschema.validate(result, schema())
    assert result["backend"]["calibration_date"] is None
    assert result["metrics"]["test"] is not None
