"""FederatedRounds.sol against the Python model of its rules: honest and hostile accounts in random order, wrong calls
included. `python -m tests.contracts.state_machine --steps N` plays at least N calls and prints how many.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from contracts.build import load_artefact
from contracts.chain import connect
from contracts.errors import ContractRevert
from contracts.local_chain import LocalChain
from contracts.records import Phase as Where
from contracts.reputation import Rules
from tests.contracts.task_model import NONE, ZERO, Event, Refused, TaskModel, bits

NODES = 7  # accounts that may play; the eighth is the opener, the ninth a stranger
STEPS: Counter[str] = Counter()
"""Calls that were played, by function, accepted and refused apart."""
MET: Counter[str] = Counter()
"""What became of them."""


class World:
    """One chain for all examples, and a clock that only the machine moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_800_000_000
        # Keys that are always the same: what is played depends on the drawn steps alone.
        self.accounts = [Account.from_key(bytes([i + 1]) * 32) for i in range(NODES + 2)]
        chain = connect(folder / "c", [a.address for a in self.accounts], clock=lambda: self.now)
        assert isinstance(chain, LocalChain)
        chain.embedded.database._sql.execute("pragma synchronous=off")
        self.chain = chain
        artefact = load_artefact()
        self.factory = chain.w3.eth.contract(abi=artefact["abi"], bytecode=artefact["bytecode"])


_worlds: list[World] = []


def world() -> World:
    if not _worlds:
        _worlds.append(World(Path(tempfile.mkdtemp(prefix="qrun-machine-"))))
    return _worlds[0]


players = st.integers(0, NODES + 1)
round_off = st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1])
share = st.integers(0, (1 << NODES) - 1)
streak = st.sampled_from([1, 1, 2, 3])
wrongs = st.sampled_from(["", "", "", "too high", "own", "too long", "empty"])
quality = st.sampled_from([0, 0, 1, 10, 30, 34, 35, 36, 60, 69, 70, 71, 85, 99, 100])
# (window, quorum): half of the tasks are synchronous; 100 seconds are all the time there is to submit.
schedules = st.sampled_from([(0, 0), (0, 0), (0, 0), (0, 7), (1, 1), (20, 2), (60, 3), (100, 3)])
worth = st.one_of(st.sampled_from([80, 85, 100]), st.sampled_from([75, 90, 100]), quality)


moves = st.one_of(
    st.tuples(
        st.just("register"), players, st.sampled_from([0, 0, 0, 1, -1]), st.sampled_from([b"k" * 32, b"k" * 32, ZERO])
    ),
    st.tuples(st.just("agree"), players, st.sampled_from([b"m" * 32, b"n" * 32, ZERO])),
    st.tuples(
        st.just("submit"),
        players,
        round_off,
        st.sampled_from([b"d" * 32, b"d" * 32, ZERO]),
        st.sampled_from([0x55, 0x70, 0x71]),
    ),
    st.tuples(st.just("commit"), players, round_off, wrongs, quality),
    st.tuples(st.just("copy"), players, round_off, players),
    st.tuples(st.just("reveal"), players, round_off, st.sampled_from([False, False, False, True])),
    st.tuples(st.just("settle"), players, round_off, st.sampled_from([0, 31, 32, 64, 2**256 - 1])),
    st.tuples(st.just("rollback"), players, st.integers(0, 6)),
    st.tuples(st.just("conclude"), players, st.sampled_from([b"f" * 32, ZERO])),
    st.tuples(st.just("abandon"), players),
    st.tuples(st.just("withdraw"), players),
    st.tuples(
        st.just("announce"),
        players,
        st.sampled_from([b"t" * 32, b"u" * 32, ZERO]),
        st.sampled_from([b"d" * 32, b"d" * 32, ZERO]),
        st.sampled_from([0x55, 0x70, 0x71]),
    ),
)
"""A single call, right or wrong: its kind, who makes it, and what it needs."""


class TaskMachine(RuleBasedStateMachine):
    """One task, played on the chain and in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world()
        self.slips: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    @initialize(
        known=st.sampled_from([0, 0, 1, 2, 3, 4, 5, 6, 7]),
        least=st.integers(1, 4),
        rounds=st.integers(1, 6),
        deposit=st.sampled_from([0, 7]),
        pool=st.sampled_from([0, 1, 1000]),
        thresholds=st.tuples(st.integers(0, 4), streak, streak, st.sampled_from([0, 50, 70, 100])),
        strong=st.sampled_from([(35, 70), (0, 0), (80, 101)]),
        good=st.lists(worth, min_size=NODES, max_size=NODES),
        begun=st.sampled_from([True, True, True, False]),
        bad=st.sampled_from([0, 1, 2, 0, 1, 2, NODES]),
        schedule=schedules,
    )
    def open(  # noqa: PLR0917
        self,
        known: int,
        least: int,
        rounds: int,
        deposit: int,
        pool: int,
        thresholds: tuple[int, int, int, int],
        strong: tuple[int, int],
        good: list[int],
        begun: bool,
        bad: int,
        schedule: tuple[int, int],
    ) -> None:
        accounts = [a.address for a in self.world.accounts]
        least = min(least, known) or least
        early, low, hard, keep = thresholds
        # One player is bad nearly always: what exclusion is for.
        self.good = [0 if i == bad else worth for i, worth in enumerate(good)]
        rules = Rules(
            submit_seconds=100, commit_seconds=50, reveal_seconds=60, setup_seconds=400, early=early, keep=keep,
            strong_early=strong[0], strong_late=strong[1], low_in_a_row=low, hard_in_a_row=hard,
            window_seconds=schedule[0], quorum=schedule[1],
        )  # fmt: skip
        opener, chain = self.world.accounts[NODES], self.world.chain
        if not known:
            deposit = deposit or 7  # a task that is open to all takes one
        terms = (b"c" * 32, rounds, least, deposit, tuple(vars(rules).values()))
        call = self.world.factory.constructor(terms, accounts[:known], "machine", "stand-in")
        address = _first_after(opener.address, chain.nonce(opener.address))
        opened = chain.embedded.now()
        chain.send(opener, call, value=pool)
        self.contract = chain.w3.eth.contract(address=address, abi=load_artefact()["abi"])
        self.events = {bytes.fromhex(e().topic.removeprefix("0x")): e() for e in self.contract.events}
        self.model = TaskModel(
            address, opener.address, opened, b"c" * 32, rounds, least, deposit, pool, rules, accounts[:known], known > 0
        )
        self._compare("register")
        if begun:
            self._set_up(list(range(known or least)))

    # -- one call ---------------------------------------------------------------------------------------------------

    def call(self, who: int, function: str, *arguments: Any, value: int = 0) -> bool:
        """Play a call on both sides; whether it was accepted."""
        account, chain, model = self.world.accounts[who], self.world.chain, self.model
        method = {"agreeMap": "agree_map"}.get(function, function)
        paid = (value,) if function == "register" else ()
        now, head = chain.embedded.now(), chain.head_number()
        expected: list[Event] | Refused
        try:
            expected = getattr(model, method)(account.address, now, *paid, *arguments)
        except Refused as refused:
            expected = refused
        send = self.contract.get_function_by_name(function)(*arguments)
        if isinstance(expected, Refused):
            STEPS[f"{function} refused: {expected.name}"] += 1
            with pytest.raises(ContractRevert) as revert:
                chain.send(account, send, value=value)
            arguments_ = {k: v.lower() if isinstance(v, str) else v for k, v in expected.arguments.items()}
            assert (revert.value.name, revert.value.args_) == (expected.name, arguments_)
            assert chain.head_number() == head  # no block, no change
        else:
            STEPS[function] += 1
            chain.send(account, send, value=value)
            assert self._said(head + 1) == expected
            self._note(expected)
            assert chain.balance(model.address) == model.balance
            model.check([a.address for a in self.world.accounts])
            self._compare(function)
        return not isinstance(expected, Refused)

    def _note(self, events: list[Event]) -> None:
        model = self.model
        for name, said in events:
            MET[name] += 1
            if model.asynchronous and name == "ModelSubmitted":
                late = model.ended_at is not None and model.ended_at >= model.opened_at + model.rules.window_seconds
                MET["windows: first submissions after them"] += late
                MET["windows: all submitted before their end"] += model.ended_at is not None and not late
            if model.asynchronous and name == "GradesRevealed":
                MET["windows: graders without a model"] += said["node"] not in model.submitted
            if name == "RoundSettled":
                MET["windows: settled"] += model.asynchronous
                MET["windows: settled, who is absent keeps its reputation"] += model.asynchronous and 255 in [
                    score for i, score in enumerate(said["scores"]) if said["reputation"][i]
                ]
                MET["settlements that exclude"] += said["excluded"] > 0
                MET["settlements that are weak"] += not said["strong"]
                MET["settlements without everybody's grades"] += 255 in said["asymmetry"]
            if name == "NodeRegistered":
                MET["nodes that come late"] += self.model.opened_at > 0
            if name == "RolledBack":
                MET["rollbacks of an open round"] += said["spent"]

    def _said(self, block: int) -> list[Event]:
        found = []
        for log in self.world.chain.logs(self.model.address, block, block):
            event = self.events[bytes(log["topics"][0])]
            found.append((event.event_name, dict(event.process_log(log)["args"])))
        return found

    def _view(self, name: str, *arguments: Any) -> Any:
        return self.world.chain.call(self.contract.get_function_by_name(name)(*arguments))

    def _compare(self, after: str) -> None:
        """What the contract shows is what the model has; nodes and money where a call may have moved them."""
        model = self.model
        credits_ = sum(s.credits for s in model.standings)
        shown = (model.opened_at, model.base, model.closed, model.settlements, len(model.accounts), model.round_nodes)
        assert tuple(self._view("state")) == (*shown, model.pages, model.ended, credits_)
        sets = (model.registered, model.excluded, model.active, model.submitted, model.committed, model.revealed)
        assert list(self._view("sets")) == [bits(s) for s in sets]
        self._compare_phase()
        if after == "agreeMap":
            assert bytes(self._view("mapDigest")) == model.map_digest
        if after not in ("register", "settle", "rollback", "abandon", "withdraw"):
            return
        assert [tuple(node) for node in self._view("nodes")] == [
            (account, s.reputation, s.low, s.hard, s.credits, s.scored)
            for account, s in zip(model.accounts, model.standings, strict=True)
        ]
        if after in ("settle", "rollback"):
            assert [r for r in range(7) if self._view("counts", r)] == sorted(model.counted | {0})
        if model.ended:
            for account in self.world.accounts:
                assert self._view("owed", account.address) == model.owed(account.address)

    def _compare_phase(self) -> None:
        assert self._view("phase") == self.model.phase(self._now())
        for seconds in (19, 49, 99):
            assert self._view("phaseAt", self._now() + seconds) == self.model.phase(self._now() + seconds)

    # -- single calls, right and wrong ------------------------------------------------------------------------------

    @rule(move=moves)
    def single(self, move: tuple[Any, ...]) -> None:
        kind, who, *rest = move
        if kind in ("submit", "commit", "copy", "reveal", "settle"):
            rest[0] = self._round(rest[0])
        getattr(self, f"_{kind}")(who, *rest)

    def _register(self, who: int, off: int, key: bytes) -> None:
        self.call(who, "register", key, ZERO, value=max(0, self.model.deposit + off))

    def _agree(self, who: int, digest: bytes) -> None:
        self.call(who, "agreeMap", digest)

    def _submit(self, who: int, round_: int, digest: bytes, codec: int) -> None:
        self.call(who, "submit", round_, digest, codec, 1 << 191, 5, b"s" * 32)

    def _commit(self, who: int, round_: int, wrong: str, like: int) -> None:
        address = self.world.accounts[who].address
        node = self.model.accounts.index(address) if address in self.model.accounts else 0
        row = bytearray([NONE] * self.model.round_nodes)
        for j in self.model.submitted - {node}:
            # What a peer is worth, or (a hostile grader) always the same.
            player = next(p for p, a in enumerate(self.world.accounts) if a.address == self.model.accounts[j])
            row[j] = self.good[player % NODES] if like < 0 else like
        if wrong == "too high" and row:
            row[-1] = 101
        elif wrong == "own" and node < len(row):
            row[node] = 100
        elif wrong == "too long":
            row += b"\x05"
        salt = bytes([who + 1]) * 32
        bound = ZERO if wrong == "empty" else self.model.commitment(round_, node, bytes(row), salt)
        if self.call(who, "commit", round_, bound):
            self.slips[round_, who] = (bytes(row), salt)

    def _copy(self, who: int, round_: int, other: int) -> None:
        """Somebody else's commitment; it can be taken, and never revealed."""
        if (round_, other) in self.slips:
            row, salt = self.slips[round_, other]
            if self.call(who, "commit", round_, self.model.commitment(round_, other, row, salt)):
                self.slips[round_, who] = (row, salt)

    def _reveal(self, who: int, round_: int, changed: bool) -> None:
        row, salt = self.slips.get((round_, who), (b"\xff", b"x" * 32))
        if changed and row:
            row = bytes([row[0] ^ 1]) + row[1:]
        self.call(who, "reveal", round_, row, salt)

    def _announce(self, who: int, topic: bytes, digest: bytes, codec: int) -> None:
        self.call(who, "announce", topic, digest, codec)

    def _settle(self, who: int, round_: int, most: int) -> None:
        self.call(who, "settle", round_, most)

    def _rollback(self, who: int, target: int) -> None:
        self.call(who, "rollback", target)

    def _conclude(self, who: int, model: bytes) -> None:
        self.call(who, "conclude", model, b"r" * 32)

    def _abandon(self, who: int) -> None:
        self.call(who, "abandon")

    def _withdraw(self, who: int) -> None:
        self.call(who, "withdraw")

    @rule(seconds=st.sampled_from([1, 20, 60, 110, 160, 210, 600]))
    def wait(self, seconds: int) -> None:
        self.world.now = self.world.chain.embedded.now() + seconds
        self._compare_phase()

    # -- what brings a task forward: otherwise few of the random calls would meet an open round -----------------------

    @precondition(lambda self: not self.model.ended)
    @rule(who=share)
    def set_up(self, who: int) -> None:
        self._set_up(self._of(who))

    def _set_up(self, who: list[int]) -> None:
        known = {a: i for i, a in enumerate(self.model.accounts)}
        nodes = {i: known.get(self.world.accounts[i].address, -1) for i in who}
        for i, node in nodes.items():
            if node not in self.model.registered and (node >= 0 or not self.model.allow_list):
                self.call(i, "register", b"k" * 32, ZERO, value=self.model.deposit)
        for i, node in nodes.items():
            if node not in self.model.proposals and self._may(i, Where.SETUP):
                self.call(i, "agreeMap", b"m" * 32)

    @precondition(lambda self: self.model.opened_at > 0)
    @rule(who=st.lists(share, min_size=1, max_size=4), late=st.booleans(), wrong=wrongs, pushy=st.booleans())
    def phases(self, who: list[int], late: bool, wrong: str, pushy: bool) -> None:
        """Phase after phase, who is named does what it asks for; then, where asked or needed, its time runs out."""
        for some in who:
            self._phase(self._of(some), late, wrong, pushy)

    @precondition(lambda self: self.model.opened_at > 0)
    @rule(absent=st.integers(0, 3 * NODES), phases=st.integers(1, 12))
    def together(self, absent: int, phases: int) -> None:
        """Everybody but one (or nobody) does so for some phases."""
        for _ in range(phases):
            self._phase([i for i in range(NODES) if i != absent], True)

    def _phase(self, who: list[int], late: bool, wrong: str = "", pushy: bool = False) -> None:
        """Who is named does what the phase asks for: the first perhaps wrongly, the pushy not in their turn."""
        round_, phase = self._round(0), self.model.phase(self._now())
        for i in who:
            if self.model.phase(self._now()) != phase or self._round(0) != round_:
                continue
            if not self._may(i, phase) and not pushy:
                continue
            if phase == Where.SUBMIT:
                self._submit(i, round_, b"d" * 32, 0x55)
            elif phase == Where.COMMIT:
                self._commit(i, round_, wrong if i == who[0] else "", -1)
            elif phase == Where.REVEAL:
                if wrong and i == who[0]:
                    self._reveal(i, round_, True)
                self._reveal(i, round_, False)
            else:
                self._settle(i, round_, 32)
        if late and self._round(0) == round_ and self.model.phase(self._now()) == phase < Where.SETTLE:
            self.world.now = self.model.deadlines()[phase]
            self._compare_phase()

    @precondition(lambda self: self.model.asynchronous and self.model.opened_at > 0 and not self.model.submitted)
    @rule(who=st.integers(1, (1 << NODES) - 1), past=st.sampled_from([-1, 0, 1, 30, 60, 80]))
    def first(self, who: int, past: int) -> None:
        """Nobody submits in the window, or hardly anybody; then who is named tries to."""
        self.world.now = max(self._now(), self.model.opened_at + self.model.rules.window_seconds + past)
        self._phase(self._of(who), False)

    @precondition(lambda self: self.model.settlements > 0 and not self.model.asynchronous)
    @rule(
        who=st.one_of(st.just((1 << NODES) - 1), share, st.just((1 << NODES) - 1)),
        back=st.integers(0, 2),
        submit=st.booleans(),
    )
    def vote(self, who: int, back: int, submit: bool) -> None:
        """Nodes vote to go back by so many rounds, one of them after it has submitted to the open one."""
        if (submit or not self.model.base) and self.model.phase(self._now()) == Where.SUBMIT:
            self._phase(self._of(who)[:1], False)
        target = max(0, self.model.base - back)
        for i in self._of(who):
            if self._may(i, Where.SETUP):
                self.call(i, "rollback", target)

    @precondition(lambda self: self.model.ended)
    @rule(who=st.integers(0, (1 << (NODES + 2)) - 1), concluded=st.booleans())
    def finish(self, who: int, concluded: bool) -> None:
        for i in range(NODES + 2):
            if (who >> i) & 1:
                self.call(i, "withdraw")
                if concluded and self._may(i, Where.SETUP):
                    self.call(i, "conclude", b"f" * 32, b"r" * 32)

    def _now(self) -> int:
        return self.world.chain.embedded.now()

    def _round(self, off: int) -> int:
        return max(0, self.model.open_round() + off)

    def _of(self, who: int) -> list[int]:
        return [i for i in range(NODES) if (who >> i) & 1]

    def _graders(self) -> set[int]:
        return self.model.active if self.model.asynchronous else self.model.submitted

    def _may(self, i: int, phase: Where) -> bool:
        address = self.world.accounts[i].address
        if address not in self.model.accounts:
            return False
        node = self.model.accounts.index(address)
        if phase in (Where.SETUP, Where.SETTLE):
            return node in self.model.registered
        return node in {
            Where.SUBMIT: self.model.active - self.model.submitted,
            Where.COMMIT: self._graders() - set(self.model.committed),
            Where.REVEAL: set(self.model.committed) - set(self.model.revealed),
        }.get(phase, set())


def _first_after(account: str, nonce: int) -> str:
    """Where a contract lands: keccak(rlp(account, nonce))[12:]."""
    import rlp
    from eth_utils.address import to_canonical_address, to_checksum_address
    from eth_utils.crypto import keccak

    return str(to_checksum_address(keccak(rlp.encode([to_canonical_address(account), nonce]))[12:]))


def play(examples: int, steps: int = 60, number: int | None = None) -> None:
    """Play so many tasks of so many rules each; `number` chooses which, None the ones that are always the same."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=number is None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    machine = TaskMachine if number is None else seed(number)(type("TaskMachine", (TaskMachine,), {}))
    run_state_machine_as_test(machine, settings=chosen)


def main() -> None:
    """Play until enough calls were made, and print how many of which."""
    parser = argparse.ArgumentParser(prog="python -m tests.contracts.state_machine", description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="calls to play at least")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch of tasks")
    options = parser.parse_args()
    began, batch = time.monotonic(), options.seed
    while STEPS.total() < options.steps:
        play(20, number=batch)
        batch += 1
        print(f"{STEPS.total()} calls after {time.monotonic() - began:.0f} s", flush=True)
    for name, count in sorted(STEPS.items()):
        print(f"{count:8d}  {name}")
    for name, count in sorted(MET.items()):
        print(f"{count:8d}  {name}")
    refused = sum(count for name, count in STEPS.items() if "refused" in name)
    print(f"{STEPS.total()} calls, {refused} of them refused: all as the model says")


if __name__ == "__main__":
    main()
