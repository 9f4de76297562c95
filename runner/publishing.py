"""What passes between the peers: models and signatures under their CIDs, checked before anybody uses them.

All checks are of what everybody can see (chain and store), so that all honest peers come to the same verdict:

    the file     its bytes hash to the CID on the chain; size, schema, shapes, range and norms (runner/update.py)
    its names    config, feature map, round and node are those of the submission
    its start    the inputs are checked models of the round that the chain says it starts from, with the weights of
                 that round's settlement (a node may leave some out), or its own last model alone; the digest `start`
                 is that of their join, computed again
    its author   the signature file signs this model for this round of this task on this chain

A model that fails counts as absent: nobody joins it, everybody grades it 0, and no run stops for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from contracts.errors import ContentError, LedgerError
from contracts.records import NodeRecord, Submission
from contracts.rounds import FederatedRounds
from contracts.signatures import MAX_BYTES as MAX_SIGNATURE
from contracts.signatures import ModelStatement, check
from contracts.store import ContentStore
from runner.config import RunConfig
from runner.node import Published, joined
from runner.shelf import Shelf
from runner.update import MAX_BYTES, Blocks, Input, Update, UpdateError, blocks_digest, parse_update

COMMON = -1
"""Node index of models that belong to nobody: the common start, and aggregates."""
KEPT_ROUNDS = 4
"""So many rounds' models are kept as they were read; what is large of them lies on the disk."""
KEPT_JOINS = 64
"""So many aggregates are."""


def common_model(config: RunConfig, map_cid: str, round_: int, blocks: Blocks, inputs: tuple[Input, ...]) -> bytes:
    """A model file that belongs to no node: the common start, or an aggregate."""
    return Update(config.digest.hex(), map_cid, round_, COMMON, blocks, inputs, blocks_digest(blocks)).to_bytes()


@dataclass(frozen=True)
class Sources:
    """What a round may start from.

    Attributes:
        round: Whose models; 0: the common start.
        models: By node; those of the nodes that may still take part.
        weights: What each that passed the checks weighs.
    """

    round: int
    models: Mapping[int, Published] = field(default_factory=dict)
    weights: Mapping[int, int] = field(default_factory=dict)


@dataclass
class Publishing:
    """A task's published models.

    Attributes:
        config: The run's.
        contract: Its task.
        store: Where files are.
        shapes: Of the run's model.
        map_cid: The agreed feature map.
        start_cid: The common start.
    """

    config: RunConfig
    contract: FederatedRounds
    store: ContentStore
    shapes: Mapping[str, tuple[int, ...]]
    map_cid: str
    start_cid: str
    _rounds: dict[int, dict[int, Published]] = field(default_factory=dict)
    _joined: dict[tuple[Input, ...], tuple[Blocks, str]] = field(default_factory=dict)
    _nodes: dict[int, NodeRecord] = field(default_factory=dict)
    _shelf: Shelf = field(default_factory=Shelf)

    def statement(self, round_: int, node: int, cid: str) -> ModelStatement:
        """What a node signs when it publishes a model."""
        contract = self.contract
        return ModelStatement(contract.chain.chain_id, contract.address, self.config.digest, round_, node, cid)

    def common_start(self) -> Blocks:
        """The blocks that all nodes begin with.

        Raises:
            UpdateError: it is not in the store, or is damaged.
        """
        return self._parse(self.start_cid).blocks

    def own(self, cid: str) -> Update:
        """A model that a node of this process has published.

        Raises:
            UpdateError: it is not in the store, or is damaged.
        """
        return self._parse(cid)

    def published(self, round_: int) -> dict[int, Published]:
        """The models of a round to which nobody submits any more, by node, checked."""
        missing, number = [], round_
        while number and number not in self._rounds:
            missing.append(number)
            number = self._base_of(number)
        # Oldest first: a model's start is checked against models that are known already.
        for number in reversed(missing):
            self._rounds[number] = {s.node: self._fetch(s) for s in self.contract.submissions(number)}
            while len(self._rounds) > KEPT_ROUNDS:
                del self._rounds[next(iter(self._rounds))]
        return self._rounds[round_]

    def sources(self, round_: int) -> Sources:
        """What a round may start from: the models of its base that passed the checks, of nodes that are active in it.

        Where the base has none (nobody was in time), it is the round that the base itself started from, and so on.
        """
        active, base = self.contract.active(round_), self._base_of(round_)
        while base:
            models = {j: p for j, p in self.published(base).items() if j in active}
            weights = self._weights(base, models)
            if weights:
                return Sources(base, models, weights)
            base = self._base_of(base)
        return Sources(0)

    def aggregate(self, base: int) -> tuple[int, Blocks, tuple[Input, ...]]:
        """The common aggregate of a settled round (the common start for 0): the round, the blocks, the inputs.

        No node's own gates count in it. Where a round has no model that passed the checks, it is that of its base.
        """
        while base:
            models = self.published(base)
            weights = self._weights(base, models)
            if weights:
                inputs = tuple(Input(models[j].cid, weight) for j, weight in sorted(weights.items()))
                return base, self._join(models, weights, inputs)[0], inputs
            base = self._base_of(base)
        return 0, self.common_start(), (Input(self.start_cid, 1),)

    def _base_of(self, round_: int) -> int:
        """The round that a round starts from: one before it, whatever a node behind a URL says, or this never ends.

        Raises:
            LedgerError: it is not.
        """
        base = self.contract.base_of(round_)
        if not 0 <= base < round_:
            raise LedgerError(
                f"the chain says that round {round_} starts from round {base}, which does not come before it.",
                "Ask another node (--chain).",
            )
        return base

    def _weights(self, round_: int, models: Mapping[int, Published]) -> dict[int, int]:
        """What the settlement of a round gives its models that passed the checks; if nothing to any, all weigh 1."""
        settled = self.contract.settlement(round_)
        given = {} if settled is None else settled.weights()
        sound = [j for j, p in sorted(models.items()) if p.update is not None]
        weights = {j: given[j] for j in sound if given.get(j, 0) > 0}
        return weights or dict.fromkeys(sound, 1)

    # -- checks -----------------------------------------------------------------------------------------------------

    def _get(self, cid: str, max_bytes: int, what: str) -> bytes:
        try:
            return self.store.get(cid, max_bytes=max_bytes)
        except ContentError:
            # The store's own words name a folder of this machine; what is said here goes into the result.
            raise UpdateError(f"{what} {cid} is not in the store, damaged, or larger than {max_bytes} bytes.") from None

    def _parse(self, cid: str) -> Update:
        data = self._get(cid, MAX_BYTES, "model file")
        update = parse_update(data, self.shapes, norm_bound=self.config.grades.norm_bound)
        return replace(update, blocks=self._shelf.put_named(update.blocks))

    def _fetch(self, submission: Submission) -> Published:
        """Fetch a submitted model and check it; what fails any check is named, and the model left out."""
        cid = submission.cid
        try:
            update = self._parse(cid)
            self._check_names(update, submission)
            self._check_start(update, submission)
            self._check_author(submission)
        except (UpdateError, ContentError) as error:
            return Published(cid, None, error.message)
        return Published(cid, update)

    def _check_names(self, update: Update, submission: Submission) -> None:
        wanted = (self.config.digest.hex(), self.map_cid, submission.round, submission.node)
        if (update.config, update.feature_map, update.round, update.node) != wanted or update.view is not None:
            raise UpdateError("model file rejected: it is of another run, map, round or node.")

    def _check_start(self, update: Update, submission: Submission) -> None:
        sources = self.sources(submission.round)
        if sources.round == 0:
            if update.inputs != (Input(self.start_cid, 1),):
                raise UpdateError("model file rejected: its input is not the common start.")
            digest = blocks_digest(self.common_start())
        else:
            by_cid = {p.cid: j for j, p in sources.models.items() if p.update is not None}
            nodes = [by_cid.get(i.cid, COMMON) for i in update.inputs]
            if COMMON in nodes or nodes != sorted(set(nodes)) or not nodes:
                raise UpdateError(f"model file rejected: its inputs are not models of round {sources.round}.")
            weights = {j: i.weight for j, i in zip(nodes, update.inputs, strict=True)}
            alone = weights == {update.node: 1}
            if not alone and any(sources.weights.get(j) != w for j, w in weights.items()):
                raise UpdateError("model file rejected: its inputs do not weigh what the contract says.")
            digest = self._join(sources.models, weights, update.inputs)[1]
        if update.start != digest:
            raise UpdateError("model file rejected: its start is not the aggregate of its inputs.")

    def _join(
        self, models: Mapping[int, Published], weights: Mapping[int, int], inputs: tuple[Input, ...]
    ) -> tuple[Blocks, str]:
        """Models as one, and its digest; most nodes join the same, so that it is computed once."""
        if inputs not in self._joined:
            while len(self._joined) >= KEPT_JOINS:
                del self._joined[next(iter(self._joined))]
            blocks = {j: u.blocks for j in weights if (u := models[j].update) is not None}
            made = next(iter(blocks.values())) if len(blocks) == 1 else joined(self.config.federation, blocks, weights)
            self._joined[inputs] = self._shelf.put_named(made), blocks_digest(made)
        return self._joined[inputs]

    def _check_author(self, submission: Submission) -> None:
        if submission.node not in self._nodes:
            self._nodes = {node.index: node for node in self.contract.nodes()}
        node = self._nodes[submission.node]
        check(
            self._get(submission.signature, MAX_SIGNATURE, "signature file"),
            self.statement(submission.round, submission.node, submission.cid),
            address=node.address,
            signing_key=node.signing_key,
        )
