"""What was published and stated, checked against the task's log, part after part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from circuits.errors import UsageError
from contracts.cid import RAW, Cid
from contracts.history import History
from experiments.features.map import FeatureMap
from runner.audit import figures, files
from runner.audit.audit import WithData
from runner.audit.checks import Findings
from runner.audit.devices import check_devices
from runner.audit.jobs import KeptJobs
from runner.audit.models import Audited, FinalModel, audited, check_config, check_map, skeleton
from runner.audit.reports import ReportChecks
from runner.audit.sources import Evidence
from runner.audit.stated import Stated, read_stated
from runner.audit.sums import AnnouncedSums, Calibrated
from runner.audit.task_state import TaskState
from runner.audit.task_view import TaskView
from runner.config import RunConfig

WHOLE = "the metrics are those of the models on the data"


@dataclass
class Content:
    """The checks of a task's content, and what each leaves for those after it.

    Attributes:
        findings: Where statements are noted.
        evidence: What there is of the run.
        state: The task, replayed.
        data: Also compute again what needs the data.
        notify: Told what is being done.
        stated: What the nodes stated at the end.
        config: The config; None where it cannot be had.
        feature_map: The agreed map; None where there is none, or it cannot be had.
        models: The published models; None without config or map.
        final: The final model; None before the end, or where it cannot be made.
        sums: The sums of peers in processes of their own; None where there are none.
        calibrated: What the last of them came to.
    """

    findings: Findings
    evidence: Evidence
    state: TaskState
    data: WithData | None
    notify: Callable[[str], None]
    stated: Stated = field(default_factory=Stated)
    config: RunConfig | None = None
    feature_map: FeatureMap | None = None
    models: Audited | None = None
    final: FinalModel | None = None
    sums: AnnouncedSums | None = None
    calibrated: Calibrated | None = None

    def __post_init__(self) -> None:
        history = self.evidence.history
        assert history is not None
        self.history: History = history
        self.view = TaskView(self.state, history.chain_id, history.address)

    def check(self) -> None:
        """Everything.

        Raises:
            UsageError: the run has no node of the number that was asked for.
            QrunError: the data are not those of the run, or cannot be loaded.
        """
        self.notify("config and feature map")
        files.check_manifest(self.findings, self.evidence, self.state)
        self.stated = read_stated(self.findings, self.evidence, self.state)
        self._check_config()
        self._check_models()
        attest(self.findings, self.state, self.data)
        self._check_sums()
        self._check_stated()
        kept = self._check_jobs()
        self._check_files()
        self._check_data(kept)

    def _check_config(self) -> None:
        made_with = figures.made_with(self.evidence, self.stated.result or self.stated.any_report)
        self.config = check_config(self.findings, self.evidence, self.state, made_with)
        nodes = len(self.state.accounts) if self.config is None else self.config.nodes
        if self.data is not None and self.data.node is not None and not 0 <= self.data.node < nodes:
            raise UsageError(f"--node {self.data.node}: the run has no such node.", f"Its nodes are 0 to {nodes - 1}.")
        if self.config is not None:
            self.feature_map = check_map(self.findings, self.evidence.store, self.state, self.config)

    def _check_models(self) -> None:
        """Every published model, and the final one."""
        config, state = self.config, self.state
        if config is None:
            self.findings.withheld(
                "models/all", "the models are those on the chain", "without the config none can be checked"
            )
        if config is None or state.map_digest is None:
            return
        self.notify("models")
        self.models = models = audited(
            self.findings, config, self.view, self.evidence.store,
            map_cid=str(Cid(RAW, state.map_digest)), faults=figures.stated_faults(self.stated.result),
        )  # fmt: skip
        models.check_start()
        for number in sorted(state.rounds):
            models.published(number)
        if state.ended is False:
            self.notify("final aggregate")
            self.final = models.check_final(state.conclusions)

    def _check_sums(self) -> None:
        """The sums of peers in processes of their own, from what they announced."""
        if self.config is None or not (self.state.announced or self.stated.apart):
            return
        self.notify("sums")
        self.sums = AnnouncedSums(self.findings, self.config, self.view, self.history, self.evidence.store)
        self.sums.check_map()
        if self.final is not None:
            self.calibrated = self.sums.calibration(self.final, skeleton(self.config))
        self.sums.check_others()

    def _check_stated(self) -> None:
        """The result, or every node's report."""
        if self.stated.result is not None:
            self.notify("result")
            figures.check_result(
                self.findings, self.stated.result, evidence=self.evidence, history=self.history, state=self.state,
                config=self.config, models=self.models, final=self.final,
            )  # fmt: skip
        if self.stated.reports:
            self.notify("reports")
            checks = ReportChecks(
                self.findings, self.stated.reports, self.view, self.config, self.final, self.calibrated,
                with_data=self.data is not None,
            )  # fmt: skip
            checks.check()
            checks.check_witnessed(self.evidence.block_hash)

    def _check_jobs(self) -> KeptJobs | None:
        """The jobs on devices that the result lists; None without a result."""
        result = self.stated.result
        if result is None:
            return None
        kept = KeptJobs(self.findings, result, self.evidence.store)
        kept.check(self.state, result)
        if self.config is not None:
            check_devices(self.findings, self.config, self.state, result, kept)
        return kept

    def _check_files(self) -> None:
        """What lies in the folder beside chain and store."""
        folder, result = self.evidence.folder, self.stated.result
        if folder is None:
            return
        if result is not None:
            files.check_copies(self.findings, folder, result)
            files.check_artefacts(self.findings, folder, result)
        files.check_blocks(self.findings, folder)
        files.check_keys(self.findings, folder, self.state)

    # -- with the data ------------------------------------------------------------------------------------------------

    def _check_data(self, kept: KeptJobs | None) -> None:
        data, config, models, feature_map = self.data, self.config, self.models, self.feature_map
        if data is None:
            self._note_data()
        elif config is None or models is None or feature_map is None:
            note = self.findings.skipped if self.state.map_digest is None else self.findings.withheld
            note("metrics/all", WHOLE, "the config or the feature map cannot be had")
        elif self.sums is None:
            from runner.audit.recompute import Recomputation

            Recomputation(
                self.findings, config, models, feature_map, self.stated.result, data, self.notify, kept
            ).check()
        else:
            from runner.audit.recompute_peers import PeersRecomputation

            PeersRecomputation(
                self.findings, config, models, feature_map, self.stated.result, data, self.notify, kept,
                reports=self.stated.reports, first=self.sums.first, rosters=self.sums.rosters, final=self.final,
            ).check()  # fmt: skip

    def _note_data(self) -> None:
        self.findings.skipped(
            "metrics/all", WHOLE,
            "needs the data: --data DIR names the folder of its files (`--data auto` looks for them)",
        )  # fmt: skip
        if self.stated.result is not None:
            self.findings.skipped(
                "result/data", "data set, numbers of records, and the compiled generator are what the result says",
                "needs the data: --data DIR",
            )  # fmt: skip


def attest(findings: Findings, state: TaskState, data: WithData | None) -> None:
    """What rests on data that only its node has, and is its word."""
    for number, round_ in sorted(state.rounds.items()):
        for node in sorted(round_.rows):
            if data is None or (data.node is not None and data.node != node):
                findings.attested(
                    f"grades/{number}/{node}/values", f"round {number}, node {node}: the grades are what it found",
                    "they rest on its own records; with them, --data computes them again",
                )  # fmt: skip
        for node in sorted(round_.submissions):
            findings.attested(
                f"models/{number}/{node}/resources", f"round {number}, node {node}: what the model took",
                "time, circuits and shots are its own statement, and pay nothing",
            )  # fmt: skip
            if data is None:
                findings.attested(
                    f"metrics/{number}/{node}", f"round {number}, node {node}: the metrics of its model",
                    "they are of its own validation records",
                )  # fmt: skip
