"""One attempt at a run, from the data to the result; what chain and store have already is not done again."""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from eth_account import Account

from backends.catalog import get_target
from backends.devices import device_name, resolve_device
from backends.engines import make_executor
from backends.layer import ExpectationLayer
from backends.target import Target
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, QrunWarning, UsageError
from circuits.types import CompiledCircuit
from contracts.chain import Chain, connect
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
from runner.places import Places
from runner.progress import Reporter, RoundResult
from runner.report.convergence import draw_convergence
from runner.result import build_result
from runner.seeds import derive, generator
from runner.store import RunStore, write_durably
from runner.update import MAX_BYTES
from runner.versions import versions

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


_THREADS = 4
"""At most so many threads share a step of the twin, fewer where memory is short."""


@dataclass(frozen=True)
class Prepared:
    """The target, the generator compiled for it, the torch device ("cpu" or "cuda"), and the seconds that took."""

    target: Target
    circuit: CompiledCircuit
    device: str
    seconds: float


def prepare(config: RunConfig, reporter: Reporter, *, device: str | None = None) -> Prepared:
    """The target and the generator on it, tried once; before anything is written, so that a mistake costs nothing.

    Args:
        config: What to run.
        reporter: Told of the progress.
        device: Where an earlier attempt computed, "cpu" or "cuda"; by default what the config's device means here.

    Raises:
        UsageError: unknown names, more qubits than the device has, a GPU that is not there, idle noise without noise.
        QrunError: the device has no usable layout, or the engine cannot run the circuit here, for want of memory too.
    """
    begin = time.perf_counter()
    experiment = find(config.experiment)
    target = get_target(config.backend)
    if target.snapshot_sha256 != config.snapshot_sha256:
        raise QrunError(
            f"{config.backend} is not the snapshot file that this run is defined by: its SHA-256 is "
            f"{target.snapshot_sha256}, not {config.snapshot_sha256}.",
            "Put that file back, or start a new run.",
        )
    available = target.num_qubits
    if available is not None and config.model.qubits > available:
        raise UsageError(
            f"--qubits {config.model.qubits}: {target.name} has {available} qubits.",
            "Take fewer, or a larger device (`qrun backends list`).",
        )
    if config.idle_noise and target.backend is None:
        raise UsageError(f"--idle-noise: {target.name} has no noise.", "Take a device (`qrun backends list`).")
    reporter.stage(f"compiling {config.model.qubits} qubits for {target.name}")
    ansatz = experiment.ansatz(config.model)
    circuit = compile_ansatz(ansatz, target.backend, seed=derive(config.seed, "layout") % 2**31)
    # Other engines than the twin compute on the CPU, whatever their number of qubits.
    wanted = (device or config.device) if config.engine == "twin" else "cpu"
    try:
        resolved = resolve_device(wanted, len(circuit.physical_qubits))
    except UsageError:
        if device is None:
            raise
        raise QrunError(
            "the run began on a CUDA device, and there is none here.",
            "Resume it where it began, or start it anew with --device cpu: another device rounds otherwise.",
        ) from None
    model = model_for(config, target, circuit, resolved)
    with warnings.catch_warnings(record=True) as told, model.executor:
        warnings.simplefilter("always", QrunWarning)
        _rehearse(model, config)
    for warning in told:
        if issubclass(warning.category, QrunWarning):
            reporter.notice("Calibration", str(warning.message))
        else:
            warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
    return Prepared(target, circuit, resolved, time.perf_counter() - begin)


def _rehearse(model: QGAN, config: RunConfig) -> None:
    """What a step of the training asks the engine for, once: what would be refused then is refused now."""
    start = model.initial(generator(config.seed, "initial"))
    layer = ExpectationLayer(model.executor, model.circuit, model.observables, gradient=model.gradient)
    if config.engine != "twin":
        model.generate(start, 2, 0)  # sampled circuits take long, and no more memory for more of them
        return
    latents = torch.zeros(config.model.batch, len(model.circuit.inputs), dtype=model.dtype)
    layer(latents, torch.tensor(start["generator"], dtype=model.dtype, requires_grad=True))


def _threads(config: RunConfig, device: str) -> int:
    """How many of this machine's cores share a step; results do not depend on it.

    Each takes the memory of a walk of its own (2 GiB at 12 qubits), and a GPU is busy with one.
    """
    if device != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_THREADS, cores)


def model_for(config: RunConfig, target: Target, circuit: CompiledCircuit, device: str) -> QGAN:
    """The run's model on an executor of its own, closed; `device` is "cpu" or "cuda"."""
    settings = config.model
    executor = make_executor(
        config.engine,
        target,
        shots=config.shots,
        precision=settings.precision,
        idle_noise=config.idle_noise,
        device=device,
        threads=_threads(config, device),
    )
    return QGAN(settings, executor, circuit)


@dataclass(frozen=True)
class Play:
    """A run being played: what it is, where, and how it is told."""

    config: RunConfig
    places: Places
    store: RunStore
    made_with: Mapping[str, str | None]
    reporter: Reporter
    prepared: Prepared

    def play(self) -> dict[str, Any]:
        """Everything from the data to the result. What chain and store have already is not done again."""
        threads = torch.get_num_threads()
        # One thread: the tensors are small, and results must not depend on how a sum is split over cores.
        torch.set_num_threads(1)
        try:
            with ExitStack() as stack, warnings.catch_warnings():
                warnings.simplefilter("ignore", QrunWarning)  # `prepare` told them
                return self._play(stack)
        finally:
            torch.set_num_threads(threads)

    def _play(self, stack: ExitStack) -> dict[str, Any]:
        config, store, reporter = self.config, self.store, self.reporter
        store.put("attempts", [*self._attempts(), versions()])
        self._tell_of_another_device()
        if 1 < config.nodes <= 2:
            reporter.notice("Privacy", "With two nodes each can subtract its own share from every sum; take three.")
        reporter.stage("reading the data")
        with store.phase("data"):
            study = self._load()
        reporter.stage("opening chain and store")
        with store.phase("chain"):
            keys = load_or_create(store.path, config.nodes)
            opener = Account.from_key(keys.opener)
            accounts = [Account.from_key(k.chain) for k in keys.nodes]
            everyone = [opener.address, *(a.address for a in accounts)]
            chain = stack.enter_context(connect(self.places.chain or store.path / "chain.sqlite", everyone))
            content = open_store(store.path / "blocks", self.places.ipfs)
            stack.callback(content.close)
            contract = self._contract(chain, opener, accounts, study)
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
            target=self.prepared.target,
            circuit=self.prepared.circuit,
            device=device_name(self.prepared.device),
            feature_map_cid=map_cid,
            rounds=rounds,
            final=final,
            contract=contract,
            chain=chain,
            store_kind=content.kind,
            versions=dict(self.made_with),
            resumed_with=[v for v in self._attempts() if v != dict(self.made_with)],
            seconds=store.total(),
            phases=store.phases(),
        )
        _keep_models(store.path, result, content)
        try:
            draw_convergence(result, store.path / "convergence.png")
        except (ValueError, RuntimeError) as error:
            # The figures are whole; a picture that cannot be drawn must not take them along.
            reporter.notice("Picture", f"convergence.png could not be drawn: {error}")
        # Last, and in one step: a run with a result.json is finished.
        write_durably(store.path / "result.json", json.dumps(result, indent=2, allow_nan=False).encode())
        return result

    def _load(self) -> Study:
        config = self.config
        told: list[str] = []

        def notify(text: str) -> None:
            told.append(text)
            self.reporter.stage(text)

        experiment = find(config.experiment)
        try:
            study = experiment.load(
                config.data,
                nodes=config.nodes,
                seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
                folder=self.places.data,
                notify=notify,
            )
        except (QrunError, OSError):
            raise
        except Exception as error:
            # Experiments come from other packages too: what they say is shown, whatever they raise.
            raise QrunError(
                f"experiment {config.experiment!r} could not load its data: {type(error).__name__}: {error}."
            ) from error
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
                f"{told[-1] if told else ''} Records are drawn from a statistical model of NSL-KDD, not from NSL-KDD "
                "itself. Figures stand in for the real ones, and every result says so; for the real ones name the "
                "files' folder with --data DIR.",
            )
        return study

    def _tell_of_another_device(self) -> None:
        """The kind of device is kept (`prepare`); another make of GPU may round otherwise, which is said."""
        known, now = self.store.get("device"), device_name(self.prepared.device)
        if known is None:
            self.store.put("device", now)
        elif known != now:
            self.reporter.notice(
                "Device", f"The run was begun on {known} and goes on on {now}; its CIDs may differ from then on."
            )

    def _attempts(self) -> list[dict[str, str | None]]:
        """Versions of every attempt at this run."""
        return list(self.store.get("attempts") or [])

    def _contract(
        self, chain: Chain, opener: LocalAccount, accounts: list[LocalAccount], study: Study
    ) -> FederatedRounds:
        """The run's contract: deployed and paid for once, found again on the same chain, refused on another."""
        config, store = self.config, self.store
        everyone = [opener.address, *(a.address for a in accounts)]
        key = os.environ.get("QRUN_CHAIN_KEY")
        known = store.get("contract")
        if known is None:
            # From here on money may have been sent to the run's keys: its folder is never forgotten.
            store.put("begun", True)
            chain.fund(everyone, key, gas_each=gas_budget(config.nodes, config.rounds))
            nodes = tuple(a.address for a in accounts)
            task = TaskSpec(config.experiment, config.digest, study.dataset.source, config.rounds, nodes)
            contract = FederatedRounds.deploy(chain, opener, task)
            store.put("contract", {"chain_id": chain.chain_id, "address": contract.address})
            return contract
        if chain.chain_id != known["chain_id"] or not chain.code(known["address"]):
            raise QrunError(
                f"the run began on chain {known['chain_id']} with contract {known['address']}, which is not on the "
                f"chain given now (id {chain.chain_id}).",
                "Give the chain that it began on; on another one, start it anew.",
            )
        contract = FederatedRounds.attach(chain, known["address"])
        left = config.rounds - contract.settled_rounds()
        if left:
            chain.fund(everyone[1:], key, gas_each=gas_budget(config.nodes, left))
        return contract

    def _peer(self, index: int, study: Study, content: ContentStore) -> Peer:
        return Peer(
            index=index,
            seed=self.config.seed,
            config=self.config.digest.hex(),
            share=study.shares[index],
            model=model_for(self.config, self.prepared.target, self.prepared.circuit, self.prepared.device),
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
        write_durably(folder / name, content.get(cid, max_bytes=MAX_BYTES))
