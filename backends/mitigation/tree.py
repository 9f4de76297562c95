"""A call's requests as trees: each is run, or expanded into further ones; what is run, and how values come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backends.mitigation.types import Expansion
from backends.protocol import FloatArray, Request, Result

_STEP = 1e-4
"""Of finite differences in measured values, far above rounding."""


@dataclass
class Node:
    """A request after some of the techniques: one that is run, or an expansion of further nodes.

    `own`: its parameters are a technique's, not those that gradients go to.
    """

    request: Request
    expansion: Expansion | None = None
    parts: tuple[Node, ...] = ()
    own: bool = False

    @property
    def key(self) -> tuple[int, ...]:
        """What is run for it, by identity."""
        request = self.request
        return id(request.circuit), id(request.observables), id(request.inputs), id(request.weights)

    def leaves(self) -> Iterator[Node]:
        """What is run, in order."""
        if self.expansion is None:
            yield self
        for part in self.parts:
            yield from part.leaves()


def leaves_of(nodes: Sequence[Node]) -> tuple[list[Request], list[int]]:
    """What is run, and which of it each leaf's values are.

    A technique's own circuits with the same parameters (the two that measure readout errors) are run once for all.
    """
    requests: list[Request] = []
    places: list[int] = []
    shared: dict[tuple[int, ...], int] = {}
    for leaf in (leaf for node in nodes for leaf in node.leaves()):
        place = shared.setdefault(leaf.key, len(requests)) if leaf.own else len(requests)
        if place == len(requests):
            requests.append(leaf.request)
        places.append(place)
    return requests, places


def estimate(node: Node, places: Sequence[int], results: Sequence[Result]) -> tuple[FloatArray, FloatArray]:
    """Values and standard errors of a request, (batch, m) each.

    Techniques propagate the errors of their parts as independent ones. What several parts have in common (the circuits
    that measure readout errors) does not average out over them: its share comes from the derivatives of the whole
    combination, by finite differences.

    Args:
        node: Of the request.
        places: For each of its leaves, which of the results it has.
        results: Of the call.
    """
    times = Counter(place for place, leaf in zip(places, node.leaves(), strict=True) if leaf.own)
    shared = {place for place, number in times.items() if number > 1}
    errors = {place: np.asarray(results[place].standard_errors, dtype=np.float64) for place in places}
    own = {place: np.zeros_like(error) if place in shared else error for place, error in errors.items()}
    values, spread = _value(node, iter([(results[place].values, own[place]) for place in places]))
    squares = spread**2
    for place in sorted(shared):
        for entry in zip(*np.nonzero(errors[place]), strict=True):
            moved = []
            for sign in (1.0, -1.0):
                found = np.array(results[place].values, dtype=np.float64)
                found[entry] += sign * _STEP
                moved.append(_combined(node, iter([found if p == place else results[p].values for p in places])))
            squares = squares + ((moved[0] - moved[1]) / (2.0 * _STEP) * errors[place][entry]) ** 2
    return values, np.sqrt(squares) if shared else spread


def _value(node: Node, found: Iterator[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Values and standard errors of a node from those of its leaves, (batch, m) each."""
    if node.expansion is None:
        return next(found)
    parts = [_value(part, found) for part in node.parts]
    combined = node.expansion.combine([torch.from_numpy(np.asarray(values, dtype=np.float64)) for values, _ in parts])
    errors = node.expansion.spread([values for values, _ in parts], [errors for _, errors in parts])
    return combined.numpy(), errors


def _combined(node: Node, found: Iterator[FloatArray]) -> FloatArray:
    """The values alone."""
    if node.expansion is None:
        return next(found)
    parts = [torch.from_numpy(np.asarray(_combined(part, found), dtype=np.float64)) for part in node.parts]
    combined: FloatArray = node.expansion.combine(parts).numpy()
    return combined
