"""What only the data show: the feature map, every metric, every grade, computed again by the runner's own code.

Floating point gives the same figures on the same kind of machine, and figures that differ a little on another: rates
agree within TOLERANCE, grades within GRADE_TOLERANCE; one that is not exactly the same is told with its difference.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from circuits.errors import QrunError, QrunWarning
from experiments.base import Study, find
from experiments.features.agreement import agree, node
from experiments.features.map import FeatureMap
from experiments.features.secure_sum import plain_sum
from experiments.metrics import Metrics
from runner.audit.audit import WithData
from runner.audit.checks import Findings
from runner.audit.devices import check_asked
from runner.audit.jobs import KeptJobs
from runner.audit.kept import TOLERANCE, check_device, replayed_model, replayed_on_device, with_devices
from runner.audit.mitigation import check_mitigation
from runner.audit.models import Audited
from runner.config import RunConfig
from runner.contribution import Member
from runner.device_stage import run_on_device
from runner.federation import Federation
from runner.job_record import mode_of, snapshot_bytes
from runner.measure import Judge
from runner.node import Peer
from runner.prepare import Prepared, prepare
from runner.progress import Warn
from runner.result import describe_backend, describe_dataset
from runner.round import RoundPlayer
from runner.seeds import derive
from runner.update import Blocks, Input, Update

GRADE_TOLERANCE = 2


class _Memory:
    """A run's memory that keeps nothing: an audit resumes nothing, and measures no seconds."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase; not here."""
        yield


class _Quiet(Warn):
    """A reporter for whom the notices of a run are no news."""

    def notice(self, title: str, text: str) -> None:
        """Ignore."""


class Again(Federation):
    """The run's federation, over a task that was played: it measures, and plays nothing."""

    def metrics_of(self, number: int) -> Metrics:
        """Metrics of a round's common aggregate on all validation records."""
        return self._measure_aggregate(number)


class Reviews(RoundPlayer):
    """The grades that the nodes give the published models; nothing is trained, signed or sent."""

    def grades(self, number: int) -> dict[int, dict[int, int]]:
        """Grader -> graded -> 0..100, of a round to which nobody submits any more."""
        self.recall(self.contract.base_of(number))
        starts = {member.index: self._start(member.peer, number)[0] for member in self._here(number)}
        return self._review(number, starts)

    def _restore(self, member: Member, number: int, start: Blocks, inputs: tuple[Input, ...]) -> None:
        """Nothing: what is not in the store is told, and not made again."""


@dataclass(frozen=True)
class Recomputation:
    """What is computed again, and what it is compared with.

    Attributes:
        findings: Where statements are noted.
        config: The run's.
        models: Its published models, checked.
        feature_map: The agreed one.
        result: The run's result, if there is one.
        data: Where the data are, and whose.
        notify: Told what is being done.
        kept: The results of its jobs on devices: they are decoded again, and none is sent.
    """

    findings: Findings
    config: RunConfig
    models: Audited
    feature_map: FeatureMap
    result: Mapping[str, Any] | None
    data: WithData
    notify: Callable[[str], None]
    kept: KeptJobs | None = None

    def check(self) -> None:
        """Compute again what rests on the data, and compare.

        Raises:
            QrunError: the data cannot be loaded, or are not those of the run; the device is not known here.
        """
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="qrun-") as folder:
                warnings.simplefilter("ignore", QrunWarning)
                self._check(Path(folder))
        finally:
            torch.set_num_threads(threads)

    def _check(self, folder: Path) -> None:
        config = with_devices(self.config, self.result, self.models.store, folder)
        self.notify("data")
        study = self._load()
        self._check_study(study)
        self.notify("device")
        prepared = prepare(config, _Quiet(), folder=folder)
        self._check_map(study)
        self._check_backend(config, prepared)
        check_mitigation(self.findings, self.result, config, prepared)
        federation = self._federation(config, prepared, study)
        if config.runtime is not None and (self.kept is None or not self.kept.whole):
            self.findings.skipped(
                "metrics/all", "the metrics are those of the models on the data",
                "the results of the run's jobs are named in its result, and there is none that names them",
            )  # fmt: skip
        else:
            self.notify("metrics")
            self._check_rounds(federation)
            self._check_final(federation, Judge.of(study, self.feature_map), prepared)
            if self.kept is not None:
                check_asked(self.findings, self.kept.jobs or [], self.kept.asked, self._replayed())
        self.notify("grades")
        self._check_grades(federation)

    def _load(self) -> Study:
        config = self.config
        return find(config.experiment).load(
            config.data,
            nodes=config.nodes,
            seeds=lambda purpose, *parts: derive(config.seed, purpose, *parts),
            folder=self.data.folder,
            notify=self.notify,
        )

    def _check_study(self, study: Study) -> None:
        """That these are the run's data.

        Raises:
            QrunError: they are not: nothing that is computed from them would say anything.
        """
        source = self.models.view.state.spec.data_source
        if study.dataset.source != source:
            raise QrunError(
                f"the run is on {source} data; what is found is {study.dataset.source}.",
                "Name the folder of the official files with --data."
                if source == "official"
                else "The stand-in is taken only where the official files are not found (QRUN_DATA, cache, network).",
            )
        if self.result is None:
            return
        told, found = _mapping(self.result.get("dataset")), describe_dataset(study)
        if told.get("sha256") != found["sha256"]:
            raise QrunError(
                "the data found are not those that the run's result names: their hashes differ.",
                "Name the folder of the same files with --data.",
            )
        self.findings.test(
            told == found, "result/dataset/data", "the data set is the one that the result names",
            f"it says {told}; it is {found}"[:300],
        )  # fmt: skip
        shares = [{"train": len(share.train), "validation": len(share.validation)} for share in study.shares]
        for entry in _list(self.result.get("nodes")):
            i = entry.get("id")
            self.findings.test(
                isinstance(i, int) and 0 <= i < len(shares) and entry.get("records") == shares[i],
                f"result/nodes/{i}/records", f"node {i} holds as many records as the result says",
                f"it says {entry.get('records')}",
            )  # fmt: skip

    def _check_map(self, study: Study) -> None:
        again = agree([node(share.train) for share in study.shares], self.config.model.qubits, plain_sum)
        self.findings.test(
            again.to_bytes() == self.feature_map.to_bytes(), "feature map/data",
            "the agreed feature map is that of the nodes' records", "from the records another one follows",
            self.models.map_cid,
        )  # fmt: skip

    def _check_backend(self, config: RunConfig, prepared: Prepared) -> None:
        if self.result is None:
            return
        told = {k: v for k, v in _mapping(self.result.get("backend")).items() if k != "device"}
        jobs = [] if self.kept is None else self.kept.jobs or []
        data = snapshot_bytes(prepared.target)
        cid = None if data is None else self.models.store.put(data)
        described = describe_backend(
            config,
            prepared.target,
            prepared.circuit,
            "",
            snapshot_cid=cid,
            mode=mode_of(jobs, prepared.target.name),
        )
        earlier = {"snapshot_cid"} if "jobs" not in self.result else set[str]()  # of a format that did not have it
        made = {k: v for k, v in described.items() if k not in {"device", *earlier}}
        wrong = [f"{k}: it says {told.get(k)}, it is {v}" for k, v in made.items() if told.get(k) != v]
        self.findings.test(
            not wrong and told.keys() == made.keys(), "result/backend", "the backend and the compiled generator are "
            "what the result says", "; ".join(wrong) or "it has other keys",
        )  # fmt: skip
        self.findings.attested(
            "result/backend/device", "the torch device is the run's own statement",
            "the nodes stated the digest of the result that holds it",
        )  # fmt: skip

    def _federation(self, config: RunConfig, prepared: Prepared, study: Study) -> Again:
        """The run's own federation over the replayed task: peers with their records, without accounts or keys."""
        models, nothing = self.models, cast("Any", None)
        members = []
        kept = self.kept
        for i in range(config.nodes):
            model = replayed_model(config, prepared, kept)
            peer = Peer(
                index=i,
                seed=config.seed,
                config=config.digest.hex(),
                share=study.shares[i],
                model=model,
                federation=config.federation,
                grades=config.grades,
            )
            peer.use_map(self.feature_map, models.map_cid)
            members.append(Member(peer, nothing, nothing, nothing, replayed_on_device(config, prepared, kept)))
        memory = cast("Any", _Memory())
        federation = Again(config, members, models.contract, models.store, plain_sum, memory, _Quiet())
        federation.publishing = models
        return federation

    # -- metrics ------------------------------------------------------------------------------------------------------

    def _check_rounds(self, federation: Again) -> None:
        """Every model on its node's records, every round's aggregate on all nodes'."""
        only = self.data.node
        told = {r.get("number"): r for r in _list((self.result or {}).get("rounds"))}
        for number, round_ in sorted(self.models.view.state.rounds.items()):
            published = self.models.published(number)
            for i, submission in sorted(round_.submissions.items()):
                update = published[i].update
                if update is None or i >= len(federation.peers) or (only is not None and i != only):
                    continue  # who is beyond the config's nodes has no share of the data
                self._again(
                    f"metrics/{number}/{i}", f"round {number}, node {i}: the metrics are those of its model on its "
                    "records", submission.metrics, partial(_measured, federation.peers[i], update),
                )  # fmt: skip
            if only is None and number in told and round_.settled is not None:
                aggregate = _mapping(_mapping(told[number].get("aggregate")).get("metrics"))
                self._again(
                    f"metrics/{number}/aggregate", f"round {number}: the aggregate's metrics are those on all "
                    "validation records", aggregate, partial(federation.metrics_of, number),
                )  # fmt: skip

    def _replayed(self) -> Iterator[tuple[str, int, int, int]]:
        """(purpose, round, base, node) of the work that was asked for again, where all of it was."""
        state, only = self.models.view.state, self.data.node
        for number, round_ in sorted(state.rounds.items()):
            for i in round_.submissions:
                if self.models.published(number)[i].update is not None and only in (None, i):
                    yield "measure", number, round_.base, i
            if only is None and self.result is not None and round_.settled is not None:
                yield "aggregate", number, round_.base, -1
        run_on = self.config.runtime is not None and self.config.runtime.run_on is not None
        if run_on and only is None and self.result is not None and state.ended is False:
            for i in state.registered:
                yield "device", state.base, 0, i

    def _check_final(self, federation: Again, judge: Judge, prepared: Prepared) -> None:
        """The final aggregate and every node's last model, on records that no node has."""
        result = self.result
        if self.data.node is not None:
            self.findings.skipped(
                "metrics/all", "the aggregates' metrics, and the other nodes', are those of the models on the data",
                f"they rest on all nodes' records, and --node {self.data.node} takes those of one",
            )  # fmt: skip
            return
        if result is None or self.models.view.state.ended is not False:
            return
        try:
            final = federation.final(judge)
        except QrunError as error:
            if self.config.runtime is None:
                raise
            self.findings.false("metrics/final", "the final metrics follow from the kept results", error.message)
            return
        if self.config.runtime is not None and self.config.runtime.run_on is not None:
            check_device(self.findings, result, self.models.store, partial(
                run_on_device, federation.config, prepared, final, federation, judge
            ))  # fmt: skip
        for part, metrics in final.metrics.items():
            told = _mapping(result.get("metrics")).get(part)
            self._same(f"metrics/final/{part}", f"the final aggregate's metrics on {part}", told, metrics)
        entries = {entry.get("id"): entry for entry in _list(result.get("nodes"))}
        for i, parts in final.nodes.items():
            for part, metrics in parts.items():
                told = _mapping(_mapping(entries.get(i)).get("metrics")).get(part)
                self._same(
                    f"metrics/final/{i}/{part}", f"node {i}: the metrics of its last model on {part}", told, metrics
                )  # fmt: skip

    def _again(self, id_: str, claim: str, told: Any, measure: Callable[[], Metrics]) -> None:
        """That figures are those computed again, where the results that they rest on are kept."""
        try:
            metrics = measure()
        except QrunError as error:
            if self.config.engine != "runtime":
                raise
            self.findings.false(id_, claim, error.message)
            return
        self._same(id_, claim, told, metrics)

    def _same(self, id_: str, claim: str, told: Any, metrics: Metrics | None) -> None:
        """That figures are those computed again, within what machines differ by."""
        made = None if metrics is None else {k: float(v) for k, v in metrics.to_dict().items()}
        if told is None or made is None:
            reason = f"the result says {told}; it is {made}"
            self.findings.test(told is None and made is None, id_, claim, reason)
            return
        apart: dict[str, tuple[Any, float, float]] = {}
        for name, value in made.items():
            said = told.get(name) if isinstance(told, Mapping) else None
            if isinstance(said, bool) or not isinstance(said, int | float):
                apart[name] = (said, value, float("inf"))
            elif round(value, 6) != said:
                apart[name] = (said, value, abs(said - value))
        far = {name: triple for name, triple in apart.items() if triple[2] > TOLERANCE}
        if apart and not far:
            claim += f" (within {max(t[2] for t in apart.values()):.1e}: another machine rounds otherwise)"
        reason = "; ".join(f"{name}: {said} is told, {value:.6f} is computed" for name, (said, value, _) in far.items())
        self.findings.test(not far, id_, claim, reason)

    # -- grades -------------------------------------------------------------------------------------------------------

    def _check_grades(self, federation: Again) -> None:
        only = self.data.node
        members = [m for m in federation.members if only is None or m.index == only]
        reviews = Reviews(members, self.models.contract, self.models, cast("Any", _Memory()), _Quiet())
        for number, round_ in sorted(self.models.view.state.rounds.items()):
            rows = round_.grades()
            if not any(member.index in rows for member in members):
                continue
            for grader, made in sorted(reviews.grades(number).items()):
                if grader in rows:
                    self._compare_grades(number, grader, rows[grader], made)

    def _compare_grades(self, number: int, grader: int, given: Mapping[int, int], made: Mapping[int, int]) -> None:
        apart = {j: (given.get(j), g) for j, g in made.items() if given.get(j) != g}
        far = {j: (gave, g) for j, (gave, g) in apart.items() if gave is None or abs(g - gave) > GRADE_TOLERANCE}
        claim = f"round {number}, node {grader}: the grades are those that its records and the models give"
        if apart and not far:
            claim += f" (within {GRADE_TOLERANCE}: another machine rounds otherwise)"
        reason = "; ".join(f"to node {j} it gave {gave}, its records give {g}" for j, (gave, g) in far.items())
        self.findings.test(not far, f"grades/{number}/{grader}/values", claim, reason)


def _measured(peer: Peer, update: Update) -> Metrics:
    with peer.model.executor:
        return peer.measure(update)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
