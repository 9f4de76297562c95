"""Hundreds of circuits in a cycle: what was read of them stays, by memory and not by number, and graphs stay within."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from backends.catalog import get_target
from backends.observables import single_z
from backends.twin import jobs as jobs_module
from backends.twin.buffers import BufferPool
from backends.twin.cache import Cache
from backends.twin.executor import TwinExecutor
from backends.twin.heisenberg import evaluate, walk
from circuits.types import CompiledCircuit
from tests.backends.reference import compiled, draw


def test_what_was_longest_unused_goes_when_memory_is_short() -> None:
    cache: Cache[str] = Cache(10)
    for key in "abc":
        cache.put(key, key.upper(), 3)
    assert cache.get("a") == "A"
    cache.put("d", "D", 4)  # 13 bytes: b, unused since it came, is dropped
    assert cache.values() == ["C", "A", "D"]
    assert cache.get("b") is None
    cache.put("a", "again", 3)
    assert len(cache) == 3
    cache.put("large", "LARGE", 99)  # stays, alone
    assert cache.values() == ["LARGE"]
    cache.put("e", "E", 10)
    assert cache.values() == ["E"]
    cache.clear()
    cache.put("f", "F", 10)
    assert cache.values() == ["F"]


def variants(count: int) -> list[CompiledCircuit]:
    """Circuits of one shape, each its own object with gates of its own."""
    plain = compiled("fake_kyiv", 3, 1, "linear")
    found = []
    for number in range(count):
        circuit = plain.circuit.copy()
        circuit.rz(0.01 * number, 0)
        circuit.sx(0)
        found.append(replace(plain, circuit=circuit))
    return found


@pytest.mark.parametrize("path", ["heisenberg", "density"])
def test_a_hundred_circuits_in_a_cycle_are_read_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[int] = Counter()
    original = jobs_module.build_program

    def counted(circuit: CompiledCircuit, *rest: object, **options: object) -> object:
        read[id(circuit)] += 1
        return original(circuit, *rest, **options)

    monkeypatch.setattr(jobs_module, "build_program", counted)
    circuits, observables = variants(100), single_z(3)
    inputs, weights = (torch.tensor(part) for part in draw(circuits[0], 2, 1))
    engine, rounds = TwinExecutor(get_target("fake_kyiv"), path=path), []
    for _ in range(2):
        rounds.append(torch.stack([engine.expectations(c, observables, inputs, weights) for c in circuits]))
    assert set(read.values()) == {1}
    assert len(read) == len(engine._jobs.all()) == 100
    assert torch.equal(rounds[0], rounds[1])
    assert len({round(float(value), 9) for value in rounds[0][:, 0].sum(1)}) > 80  # each is a circuit of its own


def test_circuits_of_one_shape_share_plans_and_workspaces() -> None:
    first, second = variants(2)
    engine, observables = TwinExecutor(get_target("fake_kyiv"), path="heisenberg"), single_z(3)
    inputs, weights = (torch.tensor(part) for part in draw(first, 2, 1))
    weights.requires_grad_()
    alone = []
    for circuit in (first, second):
        other = TwinExecutor(get_target("fake_kyiv"), path="heisenberg")
        values = other.expectations(circuit, observables, inputs, weights)
        alone.append((values.detach(), torch.autograd.grad(values.sum(), weights)[0]))
    both = [engine.expectations(circuit, observables, inputs, weights) for circuit in (first, second)]
    slopes = [torch.autograd.grad(values.sum(), weights)[0] for values in reversed(both)][::-1]
    a, b = engine._jobs.all()
    assert a.walks is b.walks
    assert a.kernel is not None
    assert b.kernel is not None
    assert a.kernel.itineraries is b.kernel.itineraries
    for values, slope, (value, gradient) in zip(both, slopes, alone, strict=True):
        assert torch.equal(values, value)
        assert torch.equal(slope, gradient)


def test_a_job_that_was_dropped_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_JOBS", 0)
    monkeypatch.setattr(jobs_module, "_CIRCUITS", 0)
    circuits, observables = variants(3), single_z(3)
    inputs, weights = (torch.tensor(part) for part in draw(circuits[0], 2, 1))
    engine = TwinExecutor(get_target("fake_kyiv"))
    first = [engine.expectations(circuit, observables, inputs, weights) for circuit in circuits]
    assert len(engine._jobs.all()) == 1
    again = [engine.expectations(circuit, observables, inputs, weights) for circuit in circuits]
    assert torch.equal(torch.stack(first), torch.stack(again))


def test_a_pool_knows_what_it_has_lent() -> None:
    pool, like = BufferPool(), torch.zeros(1, dtype=torch.float64)
    leases = [pool.lease((3, 5), like), pool.lease((2,), like)]
    assert pool.lent() == 8 * 17
    del leases[0]
    assert pool.lent() == 8 * 2
    leases.append(pool.lease((4,), like))  # takes the one of 15
    assert pool.lent() == 8 * 17
    leases.clear()
    assert pool.lent() == 0


def test_graphs_beyond_the_memory_for_all_are_walked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of hundreds of circuits would else keep a walk of each until its gradient is taken."""
    circuits, observables = variants(6), single_z(3)
    inputs, weights = (torch.tensor(part) for part in draw(circuits[0], 2, 1))
    weights.requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor, int]:
        engine = TwinExecutor(get_target("fake_kyiv"), path="heisenberg")
        values = torch.stack([engine.expectations(circuit, observables, inputs, weights) for circuit in circuits])
        lent = engine._pool.lent()
        (slope,) = torch.autograd.grad(values.square().sum(), weights)
        return values.detach(), slope, lent

    monkeypatch.setattr(walk, "_OWN", 0)
    values, slope, lent = step()
    monkeypatch.setattr(evaluate, "_ALIVE", lent // 2)
    fewer = step()
    assert 0 < fewer[2] <= lent // 2
    np.testing.assert_array_equal(fewer[0], values)
    np.testing.assert_array_equal(fewer[1], slope)
