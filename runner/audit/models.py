"""What was published, checked again: config, feature map, every model and signature, every aggregate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from circuits.errors import QrunError
from circuits.hostile import load_json
from contracts.cid import RAW, Cid, parse_cid
from contracts.errors import ContentError, LedgerError
from contracts.records import Submission
from contracts.rounds import FederatedRounds
from experiments.features.map import FeatureMap
from experiments.models.qgan import QGAN
from runner.audit.checks import Findings
from runner.audit.sources import Evidence, Reader
from runner.audit.task_state import TaskState
from runner.audit.task_view import TaskView
from runner.config import MAX_CONFIG_BYTES, RunConfig, canonical
from runner.newest import NewestModels
from runner.node import Published
from runner.publishing import Publishing, common_model
from runner.seeds import generator
from runner.task_config import config_cid, config_of, saved_values, terms_of
from runner.update import MAX_BYTES, Blocks, Update, UpdateError, parse_update, quantise
from runner.versions import git_commit, package_version


def check_config(
    findings: Findings, evidence: Evidence, state: TaskState, made_with: str | None = None
) -> RunConfig | None:
    """The config behind the task's digest, and whether the task is of that config; None where it cannot be had.

    Args:
        findings: Where statements are noted.
        evidence: Where it may lie.
        state: The task.
        made_with: The version of qrun that the run says it was made with.
    """
    digest = state.spec.config_digest
    cid = config_cid(digest)
    claim = "the config's bytes are in the store, under the digest that the task was opened with"
    data = _config_bytes(findings, evidence, digest, cid, claim)
    if data is None:
        return None
    form = "the config is one, whole"
    try:
        saved = saved_values(data)
    except QrunError as error:
        findings.false("config/form", form, str(error), cid)
        return None
    config, problem = None, ""
    try:
        config = config_of(saved)
    except QrunError as error:
        problem = error.message
    if config is None:
        own = version_of({"qrun": package_version("qrun"), "git_commit": git_commit()})
        if made_with is None or made_with == own:
            findings.false("config/form", form, problem, cid)
        else:
            reason = f"the run cannot be audited by this version, {own} (made with qrun {made_with}): {problem}"
            findings.withheld("config/form", "the config is one of this version of qrun", reason, cid)
        return None
    findings.test(True, "config/form", form, where=cid)
    for term in terms_of(state.spec, config):
        findings.test(
            term.agree, f"config/task/{term.name}", f"the task's {term.name} are the config's",
            f"the task was opened with {term.said}, the config has {term.wanted}", cid,
        )  # fmt: skip
    return config


def version_of(made: Mapping[str, Any]) -> str | None:
    """The version of qrun, and the commit where it runs from a checkout, in words; None where none is named."""
    version, commit = made.get("qrun"), made.get("git_commit")
    if not isinstance(version, str):
        return None
    return f"{version[:40]} at commit {commit[:12]}" if isinstance(commit, str) else version[:40]


def _config_bytes(findings: Findings, evidence: Evidence, digest: bytes, cid: str, claim: str) -> bytes | None:
    try:
        data = evidence.store.get(cid, max_bytes=MAX_CONFIG_BYTES)
        findings.test(True, "config/store", claim, where=cid)
        return data
    except ContentError as error:
        findings.false("config/store", claim, error.message, cid)
    # The run's config.json may have it still.
    try:
        saved = load_json(evidence.manifest or b"", max_bytes=MAX_CONFIG_BYTES, what="config.json")["config"]
        data = canonical(saved)
    except (QrunError, KeyError, TypeError, AttributeError):
        return None
    return data if hashlib.sha256(data).digest() == digest else None


def check_map(findings: Findings, store: Reader, state: TaskState, config: RunConfig) -> FeatureMap | None:
    """The feature map that the nodes agreed on; None where there is none, or it cannot be had."""
    if state.map_digest is None:
        findings.skipped("feature map/agreed", "more than two thirds of the nodes stated the same feature map",
                         "the task is not that far")  # fmt: skip
        return None
    other = sorted(i for i, digest in state.proposals.items() if digest != state.map_digest)
    findings.test(
        3 * (len(state.proposals) - len(other)) > 2 * len(state.proposals),
        "feature map/agreed",
        "more than two thirds of the nodes stated the same feature map",
        f"nodes {other} stated another one",
    )
    cid = str(Cid(RAW, state.map_digest))
    claim = "the agreed feature map is in the store, and is one"
    try:
        found = FeatureMap.from_bytes(store.get(cid, max_bytes=MAX_BYTES))
    except (ContentError, QrunError) as error:
        findings.false("feature map/content", claim, error.message, cid)
        return None
    findings.test(
        len(found.low) == config.model.qubits, "feature map/content", claim,
        f"it gives {len(found.low)} features, and the model has {config.model.qubits} qubits", cid,
    )  # fmt: skip
    return found


def skeleton(config: RunConfig) -> QGAN:
    """The run's model without its device: its blocks' shapes and common start do not depend on that."""
    from backends.catalog import get_target
    from runner.compiled import generator_for
    from runner.models import model_for

    plain = config.model_copy(
        update={
            "engine": "twin",
            "shots": None,
            "idle_noise": False,
            "mitigation": None,
            "model": config.model.model_copy(update={"gradient": "auto", "max_depth": None, "infidelity_weight": None}),
        }
    )
    ideal = get_target("ideal")
    return model_for(plain, ideal, generator_for(plain, ideal), "cpu")


@dataclass(frozen=True)
class FinalModel:
    """The common aggregate that a task ends with.

    Attributes:
        cid: Of its file.
        base: The round that it is of.
        blocks: Its parameters.
        data: The file.
    """

    cid: str
    base: int
    blocks: Blocks
    data: bytes


Step = tuple[str, str, Callable[[], object]]
"""A check of a model: the statement's id, what is claimed, and what raises where it does not hold."""


class Audited(Publishing):
    """The runner's own checks of published models, each noted as a statement.

    A model that fails one counts as absent, and the rest of the task goes on: where the peers saw that too (`faults`,
    from the result, or a score of 0), that is what holds; where they did not, the statement is false.
    """

    of_names: ClassVar[str] = "the model names its config, feature map, round and node"
    of_start: ClassVar[str] = (
        "the model started from the aggregate of its inputs, which weigh what the contract's reputation gives them"
    )

    def __init__(
        self,
        findings: Findings,
        config: RunConfig,
        view: TaskView,
        store: Reader,
        *,
        model: QGAN,
        map_cid: str,
        faults: Mapping[tuple[int, int], str] | None,
    ) -> None:
        start = quantise(model.initial(generator(config.seed, "initial")))
        self._start_bytes = common_model(config, map_cid, 0, start, ())
        super().__init__(
            config,
            cast("FederatedRounds", view),
            cast("Any", store),
            model.shapes(),
            map_cid,
            store.put(self._start_bytes),
        )
        self.view = view
        self._findings = findings
        self._reader = store
        self._stated = faults
        self._noted: dict[tuple[int, int], Published] = {}

    def check_start(self) -> None:
        """That the common start is in the store. What it is follows from the config's seed."""
        claim = "the common start that the config's seed gives is in the store"
        try:
            self._reader.get(self.start_cid, max_bytes=MAX_BYTES)
            self._findings.test(True, "models/0/start", claim, where=self.start_cid)
        except ContentError as error:
            self._findings.false("models/0/start", claim, error.message, self.start_cid)

    def common_start(self) -> Blocks:
        """The blocks that all nodes begin with, as the config's seed gives them."""
        return parse_update(self._start_bytes, self.shapes).blocks

    def _fetch(self, submission: Submission) -> Published:
        key = (submission.round, submission.node)
        if key not in self._noted:
            self._noted[key] = self._examine(submission)
        return self._noted[key]

    def _examine(self, submission: Submission) -> Published:
        where, cid = f"{submission.round}/{submission.node}", submission.cid
        who = f"round {submission.round}, node {submission.node}"
        update: Update | None = None
        faults: list[tuple[str, str, str, str]] = []  # id, claim, reason, place

        def attempt(id_: str, claim: str, place: str, step: Any) -> Any:
            try:
                value = step()
            except (UpdateError, ContentError, LedgerError) as error:
                faults.append((id_, f"{who}: {claim}", error.message, place))
                return None
            self._findings.test(True, id_, f"{who}: {claim}", where=place)
            return value

        data = attempt(
            f"models/{where}/bytes", "the model in the store is the one on the chain", cid,
            lambda: self._reader.get(cid, max_bytes=MAX_BYTES),
        )  # fmt: skip
        if data is not None:
            update = attempt(
                f"models/{where}/form", "the model has the run's schema and shapes, finite values, norms within bounds",
                cid, lambda: self._parse(cid),
            )  # fmt: skip
        if update is not None:
            for id_, claim, step in self._steps(update, submission):
                attempt(id_, claim, cid, step)
        attempt(f"signatures/{where}", "the node signed this model, for this round of this task on this chain",
                submission.signature, lambda: self._check_author(submission))  # fmt: skip
        if not faults:
            return Published(cid, update)
        self._note_faults(submission, faults)
        return super()._fetch(submission)  # the fault in the runner's own words, as it stands in a result

    def _steps(self, update: Update, submission: Submission) -> list[Step]:
        """What is checked of a model that could be read, in order."""
        where = f"{submission.round}/{submission.node}"
        return [
            (f"models/{where}/names", self.of_names, lambda: self._check_names(update, submission)),
            (f"aggregation/{where}/start", self.of_start, lambda: self._check_start(update, submission)),
        ]

    def _note_faults(self, submission: Submission, faults: list[tuple[str, str, str, str]]) -> None:
        number, node = submission.round, submission.node
        round_ = self.view.state.rounds[number]
        if self._stated is not None:
            seen = bool(self._stated.get((number, node)))
        else:
            seen = round_.settled is not None and round_.settled.scores[node] == 0
        for id_, claim, reason, place in faults:
            if seen:
                told = f"round {number}, node {node}: counts as absent, and its peers saw that ({reason.rstrip('.')})"
                self._findings.test(True, id_, told, where=place)
            else:
                self._findings.false(id_, claim, reason, place)
        for grader, row in sorted(round_.grades().items()) if seen else ():
            self._findings.test(
                row.get(node, 0) == 0,
                f"grades/{number}/{grader}/absent/{node}",
                f"round {number}, node {grader}: gives 0 to node {node}, whose model fails a check",
                f"it gave {row.get(node)}",
            )

    def check_final(self, concluded: Mapping[int, tuple[bytes, bytes]]) -> FinalModel | None:
        """The final aggregate, made again from the models; None where it cannot be."""
        try:
            base, blocks, inputs = self.aggregate(self.view.base())
        except (QrunError, LedgerError) as error:
            self._findings.false("aggregation/final", "the final aggregate can be made again", error.message)
            return None
        data = common_model(self.config, self.map_cid, base, blocks, inputs)
        cid = self._reader.put(data)
        claim = "the final aggregate of the models, made again, is in the store"
        try:
            self._reader.get(cid, max_bytes=MAX_BYTES)
            self._findings.test(True, "aggregation/final", claim, where=cid)
        except ContentError as error:
            if concluded:
                self._findings.false("aggregation/final", claim, error.message, cid)
            else:
                self._findings.skipped("aggregation/final", claim, "no node has stated a final model yet", cid)
        digest = parse_cid(cid).digest
        for node, (model, _) in sorted(concluded.items()):
            self._findings.test(
                model == digest, f"end/{node}/model", f"node {node} states this final aggregate",
                f"it states one with the digest {model.hex()[:16]}…; from the models follows {cid}", cid,
            )  # fmt: skip
        return FinalModel(cid, base, blocks, data)


class AuditedWindows(Audited, NewestModels):
    """The same of an asynchronous task, whose models name the settled round that they were made from."""

    of_names: ClassVar[str] = "the model names its config, feature map and node, and is its node's next one (sequence)"
    of_start: ClassVar[str] = (
        "the model started from the aggregate of its inputs: the newest models as of its view, which weigh what "
        "reputation and age give them"
    )

    def _steps(self, update: Update, submission: Submission) -> list[Step]:
        view = (
            f"models/{submission.round}/{submission.node}/view",
            "its view was settled when it was submitted, and is not behind that of its node's model before",
            lambda: self._check_view(update, submission),
        )
        names, start = super()._steps(update, submission)
        return [names, view, start]


def audited(
    findings: Findings,
    config: RunConfig,
    view: TaskView,
    store: Reader,
    *,
    map_cid: str,
    faults: Mapping[tuple[int, int], str] | None,
) -> Audited:
    """A task's published models, by its schedule; nothing is read yet."""
    kind = AuditedWindows if config.federation.asynchronous else Audited
    return kind(findings, config, view, store, model=skeleton(config), map_cid=map_cid, faults=faults)
