"""Models of windows as an audit finds them: one that breaks a rule is false where it was let pass, and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from contracts.signatures import ModelStatement, sign
from contracts.store import BlockStore
from runner.aggregate import aggregate
from runner.audit.models import skeleton
from runner.federation import publishing_for
from runner.newest import NewestModels
from runner.publishing import common_model
from runner.update import Input, Update, blocks_digest
from tests.contracts.conftest import METRICS, Play, all_grades
from tests.runner.audit.conftest import Audits
from tests.runner.audit.support import task
from tests.runner.audit.test_absent import false
from tests.runner.small_federation import Map, small_config

CONFIG = small_config(
    3, 4, schedule="async", window_seconds=400, submit_seconds=1000, commit_seconds=200, reveal_seconds=200, quorum=2,
    age_discount=1.0,
)  # fmt: skip
LAST, LIAR = 4, 1
VIEWS: dict[int, dict[int, int]] = {1: {0: 0, 1: 0, 2: 0}, 2: {0: 1, 1: 1}, 3: {0: 2, 2: 1}, 4: {0: 3, 1: 3, 2: 3}}
"""Window -> node -> what it had seen when it began: node 2 is slow."""
GRADES = {0: 90, 1: 80, 2: 70}


@dataclass
class Script:
    """A task of three that is played by hand."""

    play: Play
    store: BlockStore
    models: NewestModels

    def make(self, round_: int, node: int, view: int) -> Update:
        """What a node that follows the rule makes."""
        models = self.models
        start, inputs = models.start(models.state(view, node), node, set())
        rng = np.random.default_rng(10 * round_ + node)
        blocks = {name: block + rng.integers(-(1 << 20), 1 << 20, block.shape) for name, block in start.items()}
        number = models.sequence(node) + 1
        return Update(CONFIG.digest.hex(), models.map_cid, number, node, blocks, inputs, blocks_digest(start), view)

    def rejoined(self, update: Update) -> Update:
        """With the start that its inputs give as they are weighed in it."""
        blocks = [self.models.own(i.cid).blocks for i in update.inputs]
        made = blocks[0] if len(blocks) == 1 else aggregate(blocks, [i.weight for i in update.inputs])
        return replace(update, start=blocks_digest(made))

    def cid(self, round_: int, node: int) -> str:
        said = self.play.contract.submission(round_, node)
        assert said is not None
        return said.cid

    def submit(self, round_: int, node: int, cid: str) -> None:
        contract, account = self.play.contract, self.play.accounts[node]
        statement = ModelStatement(contract.chain.chain_id, contract.address, CONFIG.digest, round_, node, cid)
        signature = self.store.put(sign(statement, account))
        contract.submit(account, round_, cid, METRICS, signature=signature)


Lie = Callable[[Script, Update], Update | str]


def other_input(**changed: int) -> Lie:
    def lie(script: Script, update: Update) -> Update:
        first = replace(
            update.inputs[0], **{name: getattr(update.inputs[0], name) + by for name, by in changed.items()}
        )
        return script.rejoined(replace(update, inputs=(first, *update.inputs[1:])))

    return lie


def older_input(script: Script, update: Update) -> Update:
    older = replace(update.inputs[0], cid=script.cid(2, 0))
    return script.rejoined(replace(update, inputs=(older, *update.inputs[1:])))


def strange_input(script: Script, update: Update) -> Update:
    stranger = script.store.put(replace(update, blocks={n: b + 1 for n, b in update.blocks.items()}).to_bytes())
    return script.rejoined(replace(update, inputs=(Input(stranger, 90), *update.inputs[1:])))


LIES: Mapping[str, tuple[Lie, str, str]] = {
    "age": (other_input(age=1), "aggregation/4/1/start", "do not weigh what reputation and age give them"),
    "weight": (other_input(weight=1), "aggregation/4/1/start", "do not weigh what reputation and age give them"),
    "older input": (older_input, "aggregation/4/1/start", "not the newest models as of round 3"),
    "made-up input": (strange_input, "aggregation/4/1/start", "not the newest models as of round 3"),
    "start": (lambda _, u: replace(u, start="0" * 64), "aggregation/4/1/start", "is not the aggregate of its inputs"),
    "sequence": (lambda _, u: replace(u, round=u.round + 1), "models/4/1/names", "not the node's next one"),
    "sequence of before": (lambda _, u: replace(u, round=1), "models/4/1/names", "not the node's next one"),
    "submitted twice": (lambda s, _: s.cid(2, LIAR), "models/4/1/names", "not the node's next one"),
    "view to come": (lambda _, u: replace(u, view=4), "models/4/1/view", "of what was not settled"),
    "view of before": (lambda _, u: replace(u, view=0), "models/4/1/view", "behind that of its node's model before"),
    "another's": (lambda s, _: s.cid(3, 0), "models/4/1/names", "another run, map or node"),
    "of a round": (
        lambda _, u: replace(u, view=None, inputs=tuple(replace(i, age=0) for i in u.inputs)),
        "models/4/1/names",
        "not the node's next one",
    ),
}


def played(folder: Path, lie: Lie | None = None, *, seen: bool = False) -> None:
    """The task in a folder; node 1's model of the last window is as the lie makes it, and its peers see that or not."""
    folder.mkdir()
    fields = {"config_digest": CONFIG.digest, "experiment": "made-up", "rules": CONFIG.federation.rules()}
    with task(folder / "chain.sqlite", 3, 4, **fields) as play:
        store = BlockStore(folder / "blocks")
        store.put(CONFIG.canonical())
        map_cid = store.put(Map().to_bytes())
        play.register()
        for account in play.accounts:
            play.contract.agree_map(account, map_cid)
        model = skeleton(CONFIG)
        of = publishing_for(CONFIG, play.contract, store, model, map_cid)
        models = NewestModels(of.config, of.contract, of.store, of.shapes, of.map_cid, of.start_cid)
        script = Script(play, store, models)
        for round_, views in VIEWS.items():
            made: dict[int, Update | str] = {node: script.make(round_, node, view) for node, view in views.items()}
            if round_ == LAST and lie is not None:
                update = made[LIAR]
                assert isinstance(update, Update)
                made[LIAR] = lie(script, update)
            for node, one in made.items():
                script.submit(round_, node, one if isinstance(one, str) else store.put(one.to_bytes()))
            if len(views) < 3:
                play.wait(450)
            grades = all_grades(views)
            for given in grades.values():
                given |= {j: 0 if seen and (round_, j) == (LAST, LIAR) else GRADES[j] for j in given}
            play.grade(round_, grades)
            play.settle(round_)
        base, blocks, inputs = models.aggregate(4)
        final = store.put(common_model(CONFIG, map_cid, base, blocks, inputs))
        for account in play.accounts:
            play.contract.conclude(account, final, b"r" * 32)


def test_who_follows_the_rule_is_believed(tmp_path: Path, verified: Audits) -> None:
    played(tmp_path / "run")
    found = verified(tmp_path / "run")
    assert false(found) == {}
    held = {check.id for check in found.findings.of("holds")}
    for round_, views in VIEWS.items():
        for node in views:
            where = f"{round_}/{node}"
            assert {f"models/{where}/names", f"models/{where}/view", f"aggregation/{where}/start"} <= held
    assert {"aggregation/final", "end/0/model"} <= held


@pytest.mark.parametrize("kind", sorted(LIES))
def test_a_model_that_breaks_a_rule_and_was_let_pass_is_false(kind: str, tmp_path: Path, verified: Audits) -> None:
    lie, id_, words = LIES[kind]
    played(tmp_path / "run", lie)
    found = false(verified(tmp_path / "run"))
    assert id_ in found
    assert words in found[id_]
    assert {name.partition("/")[2] for name in found} <= {"4/1/names", "4/1/view", "4/1/start"}


@pytest.mark.parametrize("kind", ["age", "sequence", "view of before"])
def test_a_model_that_its_peers_saw_through_is_no_false_statement(kind: str, tmp_path: Path, verified: Audits) -> None:
    played(tmp_path / "run", LIES[kind][0], seen=True)
    found = verified(tmp_path / "run")
    assert false(found) == {}
    assert any("counts as absent" in check.claim for check in found.findings.of("holds"))
