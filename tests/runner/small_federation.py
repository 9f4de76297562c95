"""A federation of seconds: two noiseless qubits, made-up features, a chain and a store in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from eth_account import Account

from backends.catalog import get_target
from circuits.compile import compile_ansatz
from contracts.chain import connect
from contracts.records import TaskSpec
from contracts.rounds import FederatedRounds
from contracts.store import BlockStore
from experiments.base import find
from runner.agreement import open_secure_sum
from runner.config import RunConfig, build_config
from runner.contribution import Member
from runner.federation import Federation
from runner.keys import load_or_create
from runner.meter import Meter
from runner.models import model_for
from runner.node import Peer
from runner.progress import RoundResult
from runner.seeds import derive, generator
from runner.store import RunStore


class Quiet:
    """Remembers the notices and says nothing."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []
        self.trained: list[tuple[int, int]] = []

    def notice(self, title: str, text: str) -> None:
        self.notices.append((title, text))

    def stage(self, text: str) -> None: ...

    def begin(self, steps: int) -> None: ...

    def step(self, round_: int, node: int, epoch: int, generator_loss: float, discriminator_loss: float) -> None:
        if (round_, node) not in self.trained:
            self.trained.append((round_, node))

    def skip(self, steps: int) -> None: ...

    def round_done(self, result: RoundResult) -> None: ...


class Map:
    """A feature map that leaves records as they are."""

    def to_bytes(self) -> bytes:
        return b"a feature map"

    def apply(self, records: Any) -> Any:
        return records


def small_config(nodes: int = 3, rounds: int = 2, **federation: Any) -> RunConfig:
    model = {
        "qubits": 2, "features": 2, "reps": 1, "steps_per_epoch": 3, "detector_steps": 3, "batch": 8, "hidden": (4,),
    }  # fmt: skip
    return build_config(
        {
            "experiment": "nsl-kdd",
            "backend": "ideal",
            "device": "cpu",
            "nodes": nodes,
            "rounds": rounds,
            "model": model,
            "federation": federation,
        }
    )


def _share(config: RunConfig, node: int) -> Any:
    rng = generator(config.seed, "made up", node)
    return SimpleNamespace(
        train=rng.normal(0.3, 0.2, (64, 2)).clip(-1, 1),
        validation=rng.normal(0.3, 0.2, (32, 2)).clip(-1, 1),
        attacks=rng.uniform(-1, 1, (16, 2)),
    )


@contextmanager
def opened(config: RunConfig, folder: Path, *, clock: Callable[[], float] | None = None) -> Iterator[Federation]:
    """The federation in a folder, on its agreed map; the same again where it was begun there."""
    folder.mkdir(exist_ok=True)
    keys = load_or_create(folder, config.nodes, signing=config.federation.signatures == "ml-dsa-65")
    opener, accounts = Account.from_key(keys.opener), [Account.from_key(k.chain) for k in keys.nodes]
    everyone = [a.address for a in (opener, *accounts)]
    target = get_target("ideal")
    circuit = compile_ansatz(find("nsl-kdd").ansatz(config.model), None, seed=derive(config.seed, "layout") % 2**31)
    memory = RunStore("small", folder)
    try:
        with connect(folder / "chain.sqlite", everyone, clock=clock) as chain:
            task = TaskSpec(
                "made-up", config.digest, "stand-in", config.rounds, tuple(everyone[1:]), config.federation.rules()
            )
            contract = FederatedRounds.deploy(chain, opener, task)
            secure_sum = open_secure_sum(contract, accounts, keys.nodes)
            members = []
            for i, account in enumerate(accounts):
                model = model_for(config, target, circuit, "cpu")
                meter = model.executor = Meter(model.executor)
                peer = Peer(
                    i, config.seed, config.digest.hex(), _share(config, i), model, config.federation, config.grades
                )
                members.append(Member(peer, account, keys.nodes[i], meter))
            store = BlockStore(folder / "blocks")
            federation = Federation(config, members, contract, store, secure_sum, memory, Quiet())
            federation.use_map(Map())  # type: ignore[arg-type]
            yield federation
    finally:
        memory.close()


def cids(rounds: list[RoundResult]) -> list[list[str]]:
    return [[n.cid for n in r.nodes] for r in rounds]


def what_repeats(rounds: list[RoundResult]) -> list[Any]:
    """All that does not depend on keys, addresses and time."""
    return [
        (
            r.number,
            r.base,
            r.aggregate,
            r.absent,
            r.void,
            [(n.node, n.cid, n.metrics, n.grades, n.reputation, n.fault) for n in r.nodes],
            (r.verdict.strong, r.verdict.scores, r.verdict.low, r.verdict.flagged, r.verdict.excluded),
        )
        for r in rounds
    ]


def noise(config: RunConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Blocks of the right shapes that nobody trained."""
    rng = np.random.default_rng(7)
    return {name: rng.integers(-(1 << 24), 1 << 24, shape) for name, shape in shapes.items()}
