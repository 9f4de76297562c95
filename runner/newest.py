"""What passes between peers that do not wait for each other: each model names the state that it was made from.

Decision 9 has the rule. With v the last settled round when a node looks, and R_k(v) the reputation in its settlement
(0 if low; where nobody's model has any, all weigh 1):

    sources(v)  the newest sound model of each node that may still take part after round v, of a round up to v, and
                this node's own newest, whatever its round
    age(k)      max(0, v - (v_k + 1)), v_k being the view of model k           (runner/ages.py)
    weight(k)   floor(R_k(v) / (1 + age(k))^a), a = federation.age_discount

A window's submission comes after the settlement of all windows before it, so that nobody's view can be beyond them; a
view never goes back. All this is on the chain and in the store: who joined what is computed again by everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.records import SettlementRecord, Submission
from runner.ages import age, weights
from runner.node import Published
from runner.publishing import Publishing
from runner.update import Blocks, Input, Update, UpdateError, blocks_digest

AGAIN = 2
"""So many settled rounds are read again."""
KEPT_MODELS = 256
"""So many models are kept as they were read; what is large of them lies on the disk."""


@dataclass(frozen=True)
class State:
    """What a node may start from, as of a settled round.

    Attributes:
        view: The round; 0: none is settled.
        models: By node.
        inputs: Their CIDs, weights and ages, by node; of those that have weight.
    """

    view: int
    models: Mapping[int, Published] = field(default_factory=dict)
    inputs: Mapping[int, Input] = field(default_factory=dict)


@dataclass
class NewestModels(Publishing):
    """A task's published models where rounds are windows; see Publishing."""

    _faults: dict[str, str] = field(default_factory=dict)
    """Of the submissions whose verdict is final, by transaction: the fault, empty where there is none."""
    _read: dict[str, Update] = field(default_factory=dict)
    _submitted: dict[int, dict[int, Submission]] = field(default_factory=dict)
    """Round -> node -> what was submitted, as `look` last saw it: a chain is not asked anew for every question."""
    _settlements: dict[int, SettlementRecord | None] = field(default_factory=dict)
    _active: dict[int, frozenset[int]] = field(default_factory=dict)
    _settled: int = 0

    def look(self) -> None:
        """Read what the chain has new. What is settled is read once more, for a reorganisation may reach so far."""
        before, self._settled = self._settled, self.contract.settled_rounds()
        opened = self.contract.rounds()
        for number in (n for n in opened if n >= before - AGAIN):
            self._submitted[number] = {s.node: s for s in self.contract.submissions(number)}
            self._settlements.pop(number, None)
            self._active.pop(number, None)

    def settled(self) -> int:
        """The last settled round: what a node that looks now sees."""
        self.look()
        return self._settled

    def sequence(self, node: int, before: int | None = None) -> int:
        """How many models a node has submitted, to rounds before `before` where it is given."""
        if before is None:
            self.look()
        return len(self._rounds_of(node, before))

    def state(self, view: int, node: int, before: int | None = None) -> State:
        """What a node may start from.

        Args:
            view: The last settled round that it looks at.
            node: Which node.
            before: The round that the model will be, or was, submitted to; None: a later one than all there are.
        """
        if before is None:
            self.look()
        models = self._newest(view)
        own = self._own(node, before)
        models.pop(node, None)
        if own is not None:
            models[node] = own
        return State(view, models, self._weighed(view, models))

    def start(self, state: State, node: int, gated: set[int]) -> tuple[Blocks, tuple[Input, ...]]:
        """Where a node goes on from: the join of its sources but those that it gates; alone where nothing is left.

        Where it has no model of its own, it goes on from what the others have, gates or not.
        """
        if not state.inputs:
            return self.common_start(), (Input(self.start_cid, 1),)
        usable = {j: i for j, i in sorted(state.inputs.items()) if j not in gated}
        own = state.models.get(node)
        if not usable and own is not None:
            return self._blocks(own), (self._alone(state, node),)
        usable = usable or dict(sorted(state.inputs.items()))
        inputs = tuple(usable.values())
        return self._join(state.models, {j: i.weight for j, i in usable.items()}, inputs)[0], inputs

    def starts(self, round_: int) -> dict[int, tuple[int, Blocks]]:
        """What the sound models of a round were trained from, by node: the view, and the join of the inputs."""
        found = {}
        for j, published in self.published(round_).items():
            if published.update is not None:
                view = published.update.view or 0
                found[j] = view, self.restart(view, j, published.update.inputs, round_)[0]
        return found

    def aggregate(self, base: int) -> tuple[int, Blocks, tuple[Input, ...]]:
        """The common aggregate as of a settled round: everybody's newest model, weighed by reputation and age."""
        self.look()
        models = self._newest(base)
        inputs = dict(sorted(self._weighed(base, models).items()))
        if not inputs:
            return 0, self.common_start(), (Input(self.start_cid, 1),)
        listed = tuple(inputs.values())
        return base, self._join(models, {j: i.weight for j, i in inputs.items()}, listed)[0], listed

    def published(self, round_: int) -> dict[int, Published]:
        """The models of a round to which nobody submits any more, by node, checked.

        What only could not be fetched is tried again the next time: its node may have come back.
        """
        # Oldest first: what a model started from is known by then.
        if round_ and not round_ <= self._settled:
            self.look()
        for number in range(1, round_):
            for submission in self._of(number):
                if submission.tx not in self._faults:
                    self._checked(submission)
        return {s.node: self._checked(s) for s in self._of(round_)}

    def _of(self, round_: int) -> list[Submission]:
        """What was submitted to a round, in the order of nodes."""
        return [s for _, s in sorted(self._submitted.get(round_, {}).items())]

    def _checked(self, submission: Submission) -> Published:
        """A submitted model with the verdict about it."""
        fault = self._faults.get(submission.tx)
        if fault:
            return Published(submission.cid, None, fault)
        if fault is not None:
            return Published(submission.cid, self._parse(submission.cid))
        found = self._fetch(submission)
        if found.update is not None or self._is_here(submission):
            self._faults[submission.tx] = found.fault
        return found

    def _parse(self, cid: str) -> Update:
        """A model that is in the store; those read last are kept."""
        if cid not in self._read:
            if len(self._read) >= KEPT_MODELS:
                del self._read[next(iter(self._read))]
            self._read[cid] = super()._parse(cid)
        return self._read[cid]

    def _is_here(self, submission: Submission) -> bool:
        """Whether what a submission names can be had, sound or not: then the verdict about it is final."""
        return all(self.store.has(cid) for cid in (submission.cid, submission.signature))

    # -- the newest -------------------------------------------------------------------------------------------------

    def _rounds_of(self, node: int, before: int | None = None) -> list[int]:
        """The rounds that a node has submitted to, in order."""
        return [r for r, s in sorted(self._submitted.items()) if node in s and (before is None or r < before)]

    def _newest(self, view: int) -> dict[int, Published]:
        """The newest sound model of each node that may take part after round `view`, of a round up to it."""
        if view == 0:
            return {}
        left = self._active_after(view)
        found: dict[int, Published] = {}
        for number in range(view, 0, -1):
            if not left - found.keys():
                break
            for j, published in self.published(number).items():
                if j in left and j not in found and published.update is not None:
                    found[j] = published
        return found

    def _active_after(self, view: int) -> frozenset[int]:
        """Who may take part once a round is settled."""
        settled = self._settlement(view)
        gone: frozenset[int] = frozenset() if settled is None else settled.excluded
        if view not in self._active:
            self._active[view] = self.contract.active(view)
        return self._active[view] - gone

    def _settlement(self, view: int) -> SettlementRecord | None:
        if view not in self._settlements:
            self._settlements[view] = self.contract.settlement(view)
        return self._settlements[view]

    def _own(self, node: int, before: int | None) -> Published | None:
        """A node's newest sound model of the rounds before `before`."""
        for number in reversed(self._rounds_of(node, before)):
            known = self._checked(self._submitted[number][node])
            if known.update is not None:
                return known
        return None

    def _weighed(self, view: int, models: Mapping[int, Published]) -> dict[int, Input]:
        """CID, weight and age of each model that has weight as of a settled round."""
        settled = self._settlement(view) if view else None
        views = {j: p.update.view or 0 for j, p in models.items() if p.update is not None}
        reputation = {} if settled is None else settled.weights()
        given = weights(view, views, reputation, self.config.federation.age_discount or 0.0)
        return {j: Input(models[j].cid, weight, age(view, views[j])) for j, weight in given.items()}

    def _alone(self, state: State, node: int) -> Input:
        own = state.models[node]
        view = 0 if own.update is None else own.update.view or 0
        return Input(own.cid, 1, age(state.view, view))

    @staticmethod
    def _blocks(published: Published) -> Blocks:
        assert published.update is not None
        return published.update.blocks

    # -- checks -----------------------------------------------------------------------------------------------------

    def _check_names(self, update: Update, submission: Submission) -> None:
        number = self.sequence(submission.node, submission.round) + 1
        wanted = (self.config.digest.hex(), self.map_cid, number, submission.node)
        if (update.config, update.feature_map, update.round, update.node) != wanted or update.view is None:
            raise UpdateError("model file rejected: it is of another run, map or node, or not the node's next one.")

    def _check_start(self, update: Update, submission: Submission) -> None:
        self._check_view(update, submission)
        if update.start != self.restart(update.view or 0, update.node, update.inputs, submission.round)[1]:
            raise UpdateError("model file rejected: its start is not the aggregate of its inputs.")

    def _check_view(self, update: Update, submission: Submission) -> None:
        view = update.view or 0
        if view >= submission.round:
            raise UpdateError("model file rejected: its view is of what was not settled when it was submitted.")
        own = self._own(update.node, submission.round)
        if own is not None and own.update is not None and view < (own.update.view or 0):
            raise UpdateError("model file rejected: its view is behind that of its node's model before.")

    def restart(self, view: int, node: int, inputs: tuple[Input, ...], before: int | None = None) -> tuple[Blocks, str]:
        """What a node starts from by its inputs, and its digest; `view` and `before` as of `state`.

        Raises:
            UpdateError: they are not what it may start from.
        """
        state = self.state(view, node, before)
        if not state.inputs:
            if inputs != (Input(self.start_cid, 1),):
                raise UpdateError("model file rejected: its input is not the common start.")
            start = self.common_start()
            return start, blocks_digest(start)
        by_cid = {i.cid: j for j, i in state.inputs.items()}
        if node in state.models:
            by_cid[state.models[node].cid] = node
        nodes = [by_cid.get(i.cid, -1) for i in inputs]
        if -1 in nodes or nodes != sorted(set(nodes)) or not nodes:
            raise UpdateError(f"model file rejected: its inputs are not the newest models as of round {state.view}.")
        alone = nodes == [node] and inputs[0] == self._alone(state, node)
        if not alone and any(state.inputs.get(j) != i for j, i in zip(nodes, inputs, strict=True)):
            raise UpdateError("model file rejected: its inputs do not weigh what reputation and age give them.")
        weights = {j: i.weight for j, i in zip(nodes, inputs, strict=True)}
        return self._join(state.models, weights, inputs)
