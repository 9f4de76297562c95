"""A run from its config to its result: set up, play the rounds, measure, write down; and on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from eth_account import Account

from backends.catalog import get_target
from backends.engines import make_executor
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.types import CompiledCircuit
from contracts.chain import connect
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds, gas_budget
from contracts.store import ContentStore, open_store
from experiments.base import Study, find
from experiments.features.agreement import agree, node
from experiments.models.qgan import QGAN
from runner.agreement import open_secure_sum
from runner.config import RunConfig
from runner.federation import Federation
from runner.keys import load_or_create
from runner.measure import Judge
from runner.node import Peer
from runner.options import config_from
from runner.places import Places
from runner.progress import Reporter, RoundResult, Silent
from runner.report.convergence import draw_convergence
from runner.result import build_result
from runner.run_folder import read_manifest, read_result
from runner.seeds import derive
from runner.store import RunIndex, RunStore, disk_errors, locked, write_durably
from runner.update import MAX_BYTES
from runner.versions import versions


@dataclass(frozen=True)
class Outcome:
    """A finished run: its name, its folder, its result (runner/result.schema.json)."""

    run: str
    path: Path
    result: dict[str, Any]


def run(
    experiment: str,
    *,
    data_dir: Path | str | None = None,
    out: Path | str | None = None,
    chain: str | None = None,
    ipfs: str | None = None,
    config: Path | str | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run an experiment and give its result.

    Args:
        experiment: Its name, e.g. "nsl-kdd".
        data_dir: Folder of the data set's files; None to look for them.
        out: Folder of the run; None for one in the user's data folder.
        chain: JSON-RPC URL; None for a chain in the run's folder.
        ipfs: Address of an IPFS daemon; None for a store in the run's folder.
        config: TOML file of values.
        reporter: Told of the progress.
        **options: Values of RunConfig and its tables, e.g. backend="fake_kyiv", rounds=3, qubits=4; they win.

    Raises:
        QrunError: with one line that says what to do.
    """
    outcome = start(
        config_from(experiment, options, None if config is None else Path(config)),
        Places(None if data_dir is None else Path(data_dir), chain, ipfs),
        out=None if out is None else Path(out),
        reporter=reporter,
    )
    return outcome.result


def start(config: RunConfig, places: Places, *, out: Path | None = None, reporter: Reporter | None = None) -> Outcome:
    """Start a new run in a folder of its own, and play it to the end."""
    reporter = reporter or Silent()
    target, circuit = _compile(config, reporter)
    index = RunIndex()
    store = index.create(f"{config.experiment}-{config.digest.hex()[:8]}", out)
    made_with = versions()
    manifest = {
        "run": store.run,
        "config": config.model_dump(mode="json"),
        "config_digest": config.digest.hex(),
        "places": places.to_json(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": made_with,
    }
    try:
        with _disk(store.path), locked(store.path):
            write_durably(store.path / "config.json", json.dumps(manifest, indent=2).encode())
            result = _Play(config, places, store, made_with, reporter, target, circuit).play()
    except KeyboardInterrupt:
        raise _interrupted(store) from None
    except Exception:
        _forget_if_empty(index, store)
        raise
    finally:
        store.close()
        index.close()
    return Outcome(store.run, store.path, result)


def _interrupted(store: RunStore) -> KeyboardInterrupt:
    return KeyboardInterrupt(f"interrupted. Go on with: qrun runs resume {store.run}")


def _forget_if_empty(index: RunIndex, store: RunStore) -> None:
    """A run that failed before anything was acknowledged leaves nothing behind."""
    try:
        begun = store.get("contract") is not None
    except sqlite3.Error:
        begun = False
    if not begun:
        store.close()
        index.remove(index.find(store.run))


def resume(name: str, *, places: Places | None = None, reporter: Reporter | None = None) -> Outcome:
    """Go on with a run that stopped. A finished run is only read.

    Raises:
        QrunError: another process works on it, or its folder is damaged.
    """
    reporter = reporter or Silent()
    index = RunIndex()
    info = index.find(name)
    index.close()
    if info.state == "missing":
        raise QrunError(f"the folder of run {info.run} ({info.path}) is gone.", f"`qrun runs rm {info.run}`.")
    if info.state == "not started":
        raise QrunError(f"run {info.run} stopped before it began.", f"`qrun runs rm {info.run}`, and start it anew.")
    config, manifest = read_manifest(info.path)
    if info.state == "finished":
        reporter.notice("Finished", f"Run {info.run} was finished already; this is its result.")
        return Outcome(info.run, info.path, read_result(info.path))
    now = versions()
    if now != manifest["versions"]:
        changed = [k for k in now if now[k] != manifest["versions"].get(k)]
        reporter.notice(
            "Versions",
            f"The run was begun with other versions of {', '.join(changed)}; its CIDs may differ from then on.",
        )
    target, circuit = _compile(config, reporter)
    store = RunStore(info.run, info.path)
    try:
        with _disk(info.path), locked(info.path):
            where = Places.recall(manifest["places"], places or Places())
            result = _Play(config, where, store, manifest["versions"], reporter, target, circuit).play()
    except KeyboardInterrupt:
        raise _interrupted(store) from None
    finally:
        store.close()
    return Outcome(info.run, info.path, result)


class _disk:
    """Turn a full disk or a missing permission, wherever it strikes, into one line."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, sqlite3.Error)):
            raise disk_errors(error, self.where) from None


def _compile(config: RunConfig, reporter: Reporter) -> tuple[Target, CompiledCircuit]:
    """The target and the generator on it; before anything is written, so that a mistake costs nothing."""
    experiment = find(config.experiment)
    target = get_target(config.backend)
    available = target.num_qubits
    if available is not None and config.model.qubits > available:
        raise UsageError(
            f"--qubits {config.model.qubits}: {target.name} has {available} qubits.",
            "Take fewer, or a larger device (`qrun backends list`).",
        )
    reporter.stage(f"compiling {config.model.qubits} qubits for {target.name}")
    ansatz = experiment.ansatz(config.model)
    return target, compile_ansatz(ansatz, target.backend, seed=derive(config.seed, "layout") % 2**31)


@dataclass(frozen=True)
class _Play:
    """A run being played: what it is, where, and how it is told."""

    config: RunConfig
    places: Places
    store: RunStore
    made_with: Mapping[str, str | None]
    reporter: Reporter
    target: Target
    circuit: CompiledCircuit

    def play(self) -> dict[str, Any]:
        """Everything from the data to the result. What chain and store have already is not done again."""
        threads = torch.get_num_threads()
        # One thread: the tensors are small, and results must not depend on how a sum is split over cores.
        torch.set_num_threads(1)
        try:
            with ExitStack() as stack:
                return self._play(stack)
        finally:
            torch.set_num_threads(threads)

    def _play(self, stack: ExitStack) -> dict[str, Any]:
        config, store, reporter = self.config, self.store, self.reporter
        reporter.stage("reading the data")
        with store.phase("data"):
            study = self._load()
        reporter.stage("opening chain and store")
        with store.phase("chain"):
            keys = load_or_create(store.path, config.nodes)
            opener = Account.from_key(keys.opener)
            accounts = [Account.from_key(k.chain) for k in keys.nodes]
            addresses = [a.address for a in accounts]
            everyone = [opener.address, *addresses]
            chain = stack.enter_context(connect(self.places.chain or store.path / "chain.sqlite", everyone))
            content = open_store(store.path / "blocks", self.places.ipfs)
            stack.callback(content.close)
            gas = gas_budget(config.nodes, config.rounds)
            chain.fund(everyone, os.environ.get("QRUN_CHAIN_KEY"), gas_each=gas)
            task = TaskSpec(config.experiment, config.digest, study.dataset.source, config.rounds, tuple(addresses))
            contract = FederatedRounds.deploy(chain, opener, task)
            store.put("contract", contract.address)
        reporter.stage("agreeing on the feature map")
        with store.phase("feature map"):
            secure_sum = open_secure_sum(contract, accounts, [k.exchange for k in keys.nodes])
            feature_map = agree([node(share.train) for share in study.shares], config.model.qubits, secure_sum)
            peers = [self._peer(i, study, content) for i in range(config.nodes)]
            federation = Federation(config, peers, accounts, contract, content, secure_sum, store, reporter)
            map_cid = federation.use_map(feature_map)

        reporter.begin(config.rounds * config.nodes * config.model.epochs * config.model.steps_per_epoch)
        rounds: list[RoundResult] = [federation.round(number) for number in range(1, config.rounds + 1)]

        reporter.stage("measuring")
        with store.phase("measuring"):
            final = federation.final(Judge.of(study, feature_map))
        result = build_result(
            run=store.run,
            config=config,
            study=study,
            target=self.target,
            circuit=self.circuit,
            feature_map_cid=map_cid,
            rounds=rounds,
            final=final,
            contract=contract,
            chain=chain,
            store_kind=content.kind,
            versions=dict(self.made_with),
            phases=store.phases(),
        )
        _keep_models(store.path, result, content)
        draw_convergence(result, store.path / "convergence.png")
        # Last, and in one step: a run with a result.json is finished.
        write_durably(store.path / "result.json", json.dumps(result, indent=2, allow_nan=False).encode())
        return result

    def _load(self) -> Study:
        config = self.config
        study = find(config.experiment).load(
            config.data,
            nodes=config.nodes,
            seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
            folder=self.places.data,
            notify=lambda text: self.reporter.notice("Data", text),
        )
        known, now = self.store.get("dataset"), {"source": study.dataset.source, "sha256": study.dataset.sha256}
        if known is not None and known != now:
            raise QrunError(
                f"the run began on {known['source']} data; what is found now is {now['source']} and differs.",
                "Give the folder of the same files with --data.",
            )
        self.store.put("dataset", now)
        if study.dataset.source != "official":
            self.reporter.notice(
                "Stand-in data",
                "Records are drawn from a statistical model of NSL-KDD, not from NSL-KDD itself. Figures stand in for "
                "the real ones, and every result says so; for the real ones name the files' folder with --data DIR.",
            )
        return study

    def _peer(self, index: int, study: Study, content: ContentStore) -> Peer:
        settings = self.config.model
        executor = make_executor(self.config.engine, self.target, shots=self.config.shots, precision=settings.precision)
        return Peer(
            index=index,
            seed=self.config.seed,
            config=self.config.digest.hex(),
            share=study.shares[index],
            model=QGAN(settings, executor, self.circuit),
            store=content,
        )


def _keep_models(path: Path, result: Mapping[str, Any], content: ContentStore) -> None:
    """Copy the models out of the store under names that people can read."""
    folder = path / "models"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    named = {"feature-map.json": result["feature_map"]["cid"], "final.json": result["final"]["cid"]}
    for round_ in result["rounds"]:
        for entry in round_["nodes"]:
            named[f"round-{round_['number']:03d}-node-{entry['id']:02d}.json"] = entry["cid"]
    for name, cid in named.items():
        (folder / name).write_bytes(content.get(cid, max_bytes=MAX_BYTES))
