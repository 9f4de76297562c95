"""One attempt at a run, from the data to the result; what chain and store have already is not done again."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from eth_account import Account

from backends.devices import device_name
from backends.runtime.types import RuntimeContext
from circuits.errors import QrunError, QrunWarning
from contracts.chain import Chain, connect
from contracts.cid import parse_cid
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds, gas_budget
from contracts.store import ContentStore, open_store
from experiments.base import Study, find
from experiments.features.agreement import agree, node
from experiments.features.fit import suits
from experiments.features.map import FeatureMap
from runner.agreement import attach_task, open_secure_sum
from runner.config import RunConfig
from runner.contribution import Member, OnDevice, steps
from runner.device_report import DeviceRun, describe
from runner.device_stage import on_device, run_on_device
from runner.federation import Federation
from runner.job_record import describe_jobs, describe_sessions, keep_results, mode_of, tell_counted
from runner.keeping import keep_models, keep_snapshot
from runner.keys import RunKeys, load_or_create
from runner.ledger import RunLedger
from runner.measure import Judge
from runner.meter import Meter
from runner.mitigated import describe_mitigation
from runner.models import device_executor, model_for
from runner.node import Peer
from runner.places import Places
from runner.prepare import Prepared
from runner.privacy import tell_privacy
from runner.progress import Reporter
from runner.report.convergence import draw_convergence
from runner.result import build_result, describe_backend, describe_detection
from runner.run_folder import MAX_BYTES as MAX_RESULT
from runner.seeds import derive
from runner.store import RunStore, write_durably
from runner.versions import versions

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount


@dataclass(frozen=True)
class Opened:
    """Where a run is played: keys, accounts, chain and store, open."""

    keys: RunKeys
    opener: LocalAccount
    accounts: Sequence[LocalAccount]
    chain: Chain
    content: ContentStore

    @property
    def everyone(self) -> list[str]:
        """All accounts: the opener's, then the nodes'."""
        return [self.opener.address, *(a.address for a in self.accounts)]


@dataclass(frozen=True)
class Play:
    """A run being played: what it is, where, and how it is told."""

    config: RunConfig
    places: Places
    store: RunStore
    made_with: Mapping[str, str | None]
    reporter: Reporter
    prepared: Prepared
    ledger: RunLedger
    chosen: str | None = None
    """Why `--mitigation auto` came to the config's stack."""
    runtime: RuntimeContext | None = None
    """There where the config has a part for IBM's Runtime."""

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
        report = store.get("report")
        if report is not None:
            return self._conclude(self._open(stack), report)
        reporter.stage("reading the data")
        with store.phase("data"):
            study = self._load()
            tell_privacy(config, {i: len(share.train) for i, share in enumerate(study.shares)}, reporter)
        reporter.stage("opening chain and store")
        with store.phase("chain"):
            opened = self._open(stack)
            contract = self._contract(opened, study.dataset.source)
        reporter.stage("agreeing on the feature map")
        with store.phase("feature map"):
            secure_sum = open_secure_sum(contract, opened.accounts, opened.keys.nodes)
            feature_map = agree([node(share.train) for share in study.shares], config.model.features, secure_sum)
            members = [self._member(i, study, opened) for i in range(config.nodes)]
            federation = Federation(
                config, members, contract, opened.content, secure_sum, store, reporter, ledger=self.ledger
            )
            map_cid = federation.use_map(feature_map, self._against(feature_map, study))

        reporter.begin(sum(steps(m, last=k == config.rounds) for m in members for k in range(1, config.rounds + 1)))
        rounds = federation.play()

        reporter.stage("measuring")
        judge = Judge.of(study, feature_map)
        with store.phase("measuring"):
            final = federation.final(judge)
            parts, detector = describe_detection(config, final, judge, study, map_cid)
        stage: DeviceRun | None = None
        if self.prepared.run_on is not None:
            reporter.stage(f"running on {self.prepared.run_on.name}")
            with store.phase("device"):
                stage = run_on_device(config, self.prepared, final, federation, judge)
        jobs = describe_jobs(self.ledger.jobs())
        keep_results(jobs, self.ledger, opened.content)
        tell_counted(jobs, federation.counted)
        sessions = describe_sessions(self.ledger.sessions())
        target = self.prepared.target
        result = build_result(
            run=store.run,
            config=config,
            manifest_sha256=_sha256(store.path / "config.json"),
            study=study,
            backend=describe_backend(
                config,
                target,
                self.prepared.circuit,
                device_name(self.prepared.device),
                snapshot_cid=keep_snapshot(target, opened.content),
                mode=mode_of(jobs, target.name),
            ),
            mitigation=describe_mitigation(config, self.prepared.outlook, self.chosen),
            jobs=jobs,
            sessions=sessions,
            device_run=None
            if stage is None
            else describe(stage, jobs, sessions, keep_snapshot(stage.target, opened.content)),
            feature_map_cid=map_cid,
            rounds=rounds,
            final=final,
            detection={"detector_cid": opened.content.put(detector.to_bytes()), "parts": parts},
            contract=contract,
            chain=opened.chain,
            store_kind=opened.content.kind,
            versions=dict(self.made_with),
            resumed_with=[v for v in self._attempts() if v != dict(self.made_with)],
            seconds=store.total(),
            phases=store.phases(),
        )
        keep_models(store.path, result, opened.content)
        try:
            draw_convergence(result, store.path / "convergence.png")
            result["artefacts"]["convergence.png"] = _sha256(store.path / "convergence.png")
        except (ValueError, RuntimeError) as error:
            # The figures are whole; a picture that cannot be drawn must not take them along.
            reporter.notice("Picture", f"convergence.png could not be drawn: {error}")
        cid = opened.content.put(json.dumps(result, indent=2, allow_nan=False).encode())
        # From here on the report is these bytes: a node may have stated their digest on the chain.
        store.put("report", {"cid": cid, "model": final.cid})
        return self._conclude(opened, {"cid": cid, "model": final.cid})

    def _conclude(self, opened: Opened, report: Mapping[str, str]) -> dict[str, Any]:
        """Have every node state the final model and the report on the chain, and write the report down.

        Raises:
            QrunError: the report is not in the store any more.
        """
        self.reporter.stage("concluding")
        if not opened.content.has(report["cid"]):
            raise QrunError(
                f"the run's report ({report['cid']}) is not in the store any more.",
                "Put the run's blocks back; without them start the run anew.",
            )
        data = opened.content.get(report["cid"], max_bytes=MAX_RESULT)
        contract = attach_task(opened.chain, self.store.get("contract"))
        model = parse_cid(report["model"]).digest
        with self.store.phase("chain"):
            for account in opened.accounts:
                contract.conclude(account, model, hashlib.sha256(data).digest())
        # Last, and in one step: a run with a result.json is finished.
        write_durably(self.store.path / "result.json", data)
        result: dict[str, Any] = json.loads(data)
        return result

    def _open(self, stack: ExitStack) -> Opened:
        config, store, places = self.config, self.store, self.places
        keys = load_or_create(store.path, config.nodes, signing=config.federation.signatures == "ml-dsa-65")
        opener = Account.from_key(keys.opener)
        accounts = [Account.from_key(k.chain) for k in keys.nodes]
        everyone = [opener.address, *(a.address for a in accounts)]
        chain = stack.enter_context(
            connect(places.chain or store.path / "chain.sqlite", everyone, policy=places.policy)
        )
        content = open_store(store.path / "blocks", places.ipfs, gateways=places.gateways)
        stack.callback(content.close)
        return Opened(keys, opener, accounts, chain, content)

    def _against(self, feature_map: FeatureMap, study: Study) -> list[int]:
        """The nodes whose own records the map does not describe."""
        rule = self.config.federation
        bounds = {"least_variance": rule.map_variance, "most_shift": rule.map_shift}
        return [i for i, share in enumerate(study.shares) if not suits(feature_map, share.train, **bounds)]

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

    def _contract(self, opened: Opened, source: str) -> FederatedRounds:
        """The run's contract: deployed and paid for once, found again on the same chain, refused on another."""
        config, store, chain = self.config, self.store, opened.chain
        key = os.environ.get("QRUN_CHAIN_KEY")
        known = store.get("contract")
        if known is None:
            # From here on money may have been sent to the run's keys: its folder is never forgotten.
            store.put("begun", True)
            chain.fund(opened.everyone, key, gas_each=gas_budget(config.nodes, config.rounds))
            nodes = tuple(a.address for a in opened.accounts)
            rules = config.federation.rules()
            task = TaskSpec(config.experiment, config.digest, source, config.rounds, nodes, rules)
            contract = FederatedRounds.deploy(chain, opened.opener, task)
            store.put("contract", {"chain_id": chain.chain_id, "address": contract.address})
            return contract
        contract = attach_task(chain, known)
        left = config.rounds - contract.settled_rounds()
        if left:
            chain.fund(opened.everyone[1:], key, gas_each=gas_budget(config.nodes, left))
        return contract

    def _member(self, index: int, study: Study, opened: Opened) -> Member:
        config = self.config
        prepared = self.prepared
        model = model_for(
            config, prepared.target, prepared.circuit, prepared.device, runtime=self.runtime, ledger=self.ledger
        )
        meter = model.executor = Meter(model.executor)
        device: OnDevice | None = None
        if config.runtime is not None and prepared.run_on is not None and prepared.run_on_circuit is not None:
            there = device_executor(config, prepared.run_on, runtime=self.runtime, ledger=self.ledger)
            device = on_device(config, prepared.run_on, prepared.run_on_circuit, there)
        peer = Peer(
            index=index,
            seed=config.seed,
            config=config.digest.hex(),
            share=study.shares[index],
            model=model,
            federation=config.federation,
            grades=config.grades,
            rounds=config.rounds,
        )
        return Member(peer, opened.accounts[index], opened.keys.nodes[index], meter, device)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
