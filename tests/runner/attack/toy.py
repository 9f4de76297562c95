"""A federation of small vectors for the attack's simulations: hundreds of windows a second, no data and no circuit.

A node trained from `a` publishes a + L u: u points towards one far optimum, turned by what its own records want and by
chance; L is longer at first. Who trains on attacks goes towards another place. The loss on a node's records grows with
what a model has of the attacks' direction, and with what it lacks of the node's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runner.config import RunConfig, build_config
from runner.node import Peer
from runner.seeds import generator
from runner.settings import FederationSettings
from runner.update import Blocks, dequantise, quantise

SIZE, SIZE_G = 400, 40
FAR = 30.0


class ToyModel:
    """What a peer asks of its model when it reviews: the loss on its records, which are one row here."""

    def __init__(self, harm: np.ndarray) -> None:
        self.harm = harm

    def benign_loss(self, model: Mapping[str, np.ndarray], x: np.ndarray) -> float:
        return float(0.3 + max(0.0, 2.0 * (model["discriminator"] @ self.harm)))


@dataclass
class ToyWorld:
    """As runner.attack.world.World, in what the simulations ask of it."""

    config: RunConfig
    foreign: float = 0.8
    chance: float = 0.4
    start: Blocks = field(init=False)

    def __post_init__(self) -> None:
        random = generator(self.config.seed, "toy")
        self.common = random.normal(size=SIZE + SIZE_G)
        self.common *= FAR / np.linalg.norm(self.common)
        self.own = _units(random.normal(size=(self.config.nodes, SIZE + SIZE_G)))
        self.harm = _units(random.normal(size=(1, SIZE + SIZE_G)))[0]
        self.start = quantise(_split(np.zeros(SIZE + SIZE_G)))

    def under(self, attack: Any, hostile: frozenset[int]) -> tuple[ToyWorld, int]:
        return self, self.config.nodes

    def peers(self, federation: FederationSettings) -> dict[int, Peer]:
        model: Any = ToyModel(_split(self.harm)["discriminator"])
        share: Any = None
        return {i: Peer(i, 0, "", share, model, federation, self.config.grades) for i in range(self.config.nodes)}

    def train(self, peer: Peer, sequence: int, start: Blocks) -> Blocks:
        return self._moved(peer.index, sequence, start, self.common)

    def poison(self, peer: Peer, hostile: frozenset[int], sequence: int, start: Blocks, share: float) -> Blocks:
        return self._moved(peer.index, sequence, start, self.common * (1 - share / 2) + share * FAR * self.harm)

    def _moved(self, node: int, sequence: int, start: Blocks, goal: np.ndarray) -> Blocks:
        a = np.concatenate([dequantise(start)[name].reshape(-1) for name in ("discriminator", "generator")])
        way = goal - a
        chance = _units(generator(self.config.seed, "toy train", node, sequence).normal(size=(1, len(a))))[0]
        step = way / np.linalg.norm(way) + self.foreign * self.own[node] + self.chance * chance
        length = 1.0 + np.exp(-np.linalg.norm(a) / 2)
        return quantise(_split(a + length * step / np.linalg.norm(step)))

    def auroc(self, blocks: Blocks, honest: list[int]) -> float:
        """How far the model has come, less the harm in it, within [0, 1]."""
        a = np.concatenate([dequantise(blocks)[name].reshape(-1) for name in ("discriminator", "generator")])
        return float(np.clip(1 - np.linalg.norm(a - self.common) / (2 * FAR), 0, 1))


def toy(seed: int, *, nodes: int = 10, rounds: int = 20, quorum: int = 7, **world: float) -> ToyWorld:
    federation = {"schedule": "async", "quorum": quorum}
    return ToyWorld(
        build_config(
            {"experiment": "nsl-kdd", "nodes": nodes, "rounds": rounds, "seed": seed, "federation": federation}
        ),
        **world,
    )


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _split(vector: np.ndarray) -> dict[str, np.ndarray]:
    return {"discriminator": vector[:SIZE], "generator": vector[SIZE:]}
