"""The executor around an executor: one call, combined inside out, with gradients, errors and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
import torch

from backends.catalog import get_target
from backends.engines import make_executor
from backends.layer import ExpectationLayer
from backends.mitigation.executor import MOST, MitigatedExecutor, count
from backends.mitigation.extrapolate import coefficients
from backends.mitigation.make import Mitigation, mitigated
from backends.mitigation.stack import TECHNIQUES, parse
from backends.mitigation.types import MitigationOptions
from backends.protocol import DifferentiableExecutor, Executor, Request, Result
from circuits.errors import UsageError
from tests.backends.mitigation.devices import request, technique

KYIV = "fake_kyiv"


class Recorder:
    """An engine that says what it was asked; sends and collects as a device does."""

    name = "recorder"
    idle_seconds = 4.5

    def __init__(self, inner: Executor) -> None:
        self.inner, self.calls, self.seeds, self.opened = inner, list[list[Request]](), list[int | None](), 0
        self.differentiable = inner.differentiable

    def __enter__(self) -> Self:
        self.opened += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened -= 1

    def run(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        self.calls.append(list(requests))
        self.seeds.append(seed)
        found = self.inner.run(requests, seed=seed)
        for number, result in enumerate(found):
            result.metadata.update(job_ids=[f"job-{number}", "all"], qpu_seconds=0.5)
        return found

    def send(self, requests: Sequence[Request], *, seed: int | None = None) -> list[Result]:
        return self.run(requests, seed=seed)

    def collect(self, handle: list[Result]) -> list[Result]:
        return handle

    def expectations(self, *args: Any) -> torch.Tensor:
        return self.inner.expectations(*args)


def engine(shots: int | None = None, *, readout_error: bool = True) -> Executor:
    return make_executor("twin", get_target(KYIV), precision="float64", readout_error=readout_error, shots=shots)


def around(inner: Executor, text: str, *, exact: bool = True, **options: object) -> MitigatedExecutor:
    found = mitigated(inner, get_target(KYIV), MitigationOptions(stack=parse(text), **options), exact=exact)
    assert isinstance(found, MitigatedExecutor)
    return found


SMALL = {"pec_samples": 4, "twirl_circuits": 2, "training_circuits": 4}
FORMS = {
    "readout": {},
    "zne": {"extrapolation": "richardson"},
    "lre": {},
    "twirl": {},
    "ddd": {},
    "pec": {},
    "readout+zne": {"extrapolation": "linear"},
    "ddd+twirl+zne": {"scale_factors": (1, 3)},
}
"""The linear techniques, and stacks of them."""


@pytest.mark.parametrize("text", [*(name for name in TECHNIQUES if name != "symmetry"), "readout+zne", "twirl+zne"])
def test_a_step_is_one_call(text: str) -> None:
    inner = Recorder(engine())
    outer, asked = around(inner, text, **SMALL), request(KYIV, 2, reps=1)
    more = request(KYIV, 2, reps=1, seed=5, batch=2)
    found = outer.run([asked, more], seed=7)
    assert len(inner.calls) == 1
    assert inner.seeds == [7]
    assert [result.values.shape for result in found] == [(3, 2), (2, 2)]
    sent = [len(each.inputs) for each in inner.calls[0]]
    assert sum(result.metadata["circuits"] for result in found) == sum(sent)
    assert [result.metadata["circuits"] for result in found] == [
        outer.circuits(each.circuit, len(each.inputs)) for each in (asked, more)
    ]
    assert found[0].metadata["mitigation"] == text
    assert found[0].metadata["engine"] == "twin"
    assert found[0].metadata["job_ids"][:2] == ["job-0", "all"]
    assert len(found[0].metadata["job_ids"]) == len(set(found[0].metadata["job_ids"]))
    assert found[0].metadata["qpu_seconds"] == pytest.approx(0.5 * (len(found[0].metadata["job_ids"]) - 1))
    assert [len(each.inputs) for each in outer.plan([asked, more])] == sent


@pytest.mark.parametrize("text", ["zne", "lre", "twirl", "ddd", "pec", "readout", "readout+zne"])
def test_the_same_circuit_objects_each_time(text: str) -> None:
    """So that an engine's compiled programs serve every step."""
    inner = Recorder(engine())
    outer, asked = around(inner, text, readout="circuits", **SMALL), request(KYIV, 2, reps=1)
    outer.run([asked])
    outer.run([replace(asked, inputs=asked.inputs + 0.1)])
    first, second = inner.calls
    assert all(one.circuit is other.circuit for one, other in zip(first, second, strict=True))
    assert all(one.observables is other.observables for one, other in zip(first, second, strict=True))


def test_measured_readout_takes_two_circuits_of_a_call() -> None:
    inner = Recorder(engine(500))
    outer = around(inner, "readout+zne", exact=False, readout="circuits")
    asked = [request(KYIV, 2, reps=1, seed=seed) for seed in range(2)]
    found = outer.run(asked, seed=1)
    # Three scales of three samples for each of two requests, and the two circuits once for all.
    assert sorted(len(each.inputs) for each in inner.calls[0]) == [1, 1, *[3] * 6]
    assert [result.metadata["circuits"] for result in found] == [11, 9]  # which add up to what was run
    assert count(outer.techniques, asked[0].circuit, 3) == 11


def test_what_requests_share_is_counted_once() -> None:
    inner = Recorder(engine(shots=100))
    outer, asked = around(inner, "readout", exact=False, readout="circuits"), request(KYIV, 2, reps=1)
    found = outer.run([asked, replace(asked, weights=asked.weights + 0.1), replace(asked, raw=True)], seed=7)
    sent = inner.calls[0]
    assert [len(each.inputs) for each in sent] == [3, 1, 1, 3, 3]
    assert [result.metadata["circuits"] for result in found[:2]] == [5, 3]
    assert [result.metadata["qpu_seconds"] for result in found[:2]] == [1.5, 0.5]
    assert found[1].metadata["job_ids"] == ["job-3", "all", "job-1", "job-2"]


@pytest.mark.parametrize("stack", ["readout+twirl", "readout+twirl+zne"])
def test_what_parts_have_in_common_does_not_average_out(stack: str) -> None:
    inner = make_executor("twin", get_target("fake_lima"), precision="float64", shots=500)
    options = MitigationOptions(stack=parse(stack), readout="circuits", twirl_circuits=8, scale_factors=(1, 3))
    outer = mitigated(inner, get_target("fake_lima"), options, exact=False)
    asked = request("fake_lima", 2, reps=1, batch=2)
    asked = replace(
        asked, inputs=0.1 * asked.inputs, weights=0.1 * asked.weights
    )  # where readout errors are most of it
    runs = [outer.run([asked], seed=seed)[0] for seed in range(40)]
    deviation = np.std([run.values for run in runs], axis=0, ddof=1)
    said = np.sqrt(np.mean([run.standard_errors**2 for run in runs], axis=0))
    np.testing.assert_allclose(said / deviation, 1.0, atol=0.35)


@pytest.mark.parametrize("stack", ["pec", "twirl+pec", "lre"])
def test_more_circuits_than_memory_holds_are_refused_before_one_is_made(
    stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pec.Pec", "lre.Lre", "twirl.Twirl"):
        monkeypatch.setattr(f"backends.mitigation.{name}.expand", lambda *_: pytest.fail("a circuit was made"))
    options = {"pec_samples": MOST + 1 if stack == "pec" else 2001, "twirl_circuits": 10, "lre_degree": 1}
    outer, asked = around(engine(), stack, lre_chunks=2 if stack == "lre" else 1, **options), request(KYIV, 2, reps=1)
    if stack == "lre":
        monkeypatch.setattr("backends.mitigation.executor.MOST", 2)
    tensors = torch.from_numpy(asked.inputs), torch.from_numpy(asked.weights)
    for call in (
        lambda: outer.run([asked]),
        lambda: outer.plan([asked]),
        lambda: outer.send([asked]),
        lambda: outer.expectations(asked.circuit, asked.observables, *tensors),
    ):
        with pytest.raises(UsageError, match=r"circuits of one, and [\d,]+ are the most"):
            call()
    assert outer.plan([replace(asked, raw=True)])[0].circuit is asked.circuit


def test_a_gradient_measures_readout_once() -> None:
    inner, asked = Recorder(engine()), request(KYIV, 2, reps=1)
    outer = around(inner, "readout+zne", readout="circuits")
    outer.expectations(asked.circuit, asked.observables, *map(torch.tensor, (asked.inputs, asked.weights)))
    assert [len(call) for call in inner.calls] == [1, 1]


def test_stacks_nest_inside_out() -> None:
    asked = request(KYIV, 3, reps=1)
    folded = technique(KYIV, "zne").expand(asked).parts
    inner = around(engine(), "readout")
    values = [inner.run([replace(asked, circuit=part.circuit)])[0].values for part in folded]
    by_hand = sum(c * v for c, v in zip(coefficients("richardson", (1, 3, 5)), values, strict=True))
    (found,) = around(engine(), "readout+zne").run([asked])
    np.testing.assert_allclose(found.values, by_hand, atol=1e-12)


def test_errors_are_propagated_to_first_order_and_samples_are_fixed_by_the_seed() -> None:
    asked = request(KYIV, 3, reps=1)
    inner = Recorder(engine(2000))
    outer = around(inner, "readout+zne", exact=False, extrapolation="richardson")
    found = outer.run([asked], seed=3)[0]
    parts = inner.inner.run(inner.calls[0], seed=3)
    c = np.array(coefficients("richardson", (1, 3, 5)))
    expected = np.sqrt(sum((w * part.standard_errors) ** 2 for w, part in zip(c, parts, strict=True)))
    np.testing.assert_allclose(found.standard_errors, expected, rtol=1e-12)
    np.testing.assert_array_equal(outer.run([asked], seed=3)[0].values, found.values)
    assert (outer.run([asked], seed=4)[0].values != found.values).any()


def test_values_may_leave_the_interval() -> None:
    """A qubit in 0, sampled: corrected for readout, its mean is at 1 and its samples about it."""
    circuit = request(KYIV, 1, reps=0).circuit
    asked = Request(circuit, request(KYIV, 1, reps=0).observables, np.zeros((50, 1)), np.zeros(len(circuit.weights)))
    (found,) = around(engine(200), "readout+zne", exact=False).run([asked], seed=0)
    assert found.values.max() > 1.0


def test_sent_and_collected_is_the_same_as_run() -> None:
    asked = [request(KYIV, 2, reps=1), request(KYIV, 2, reps=1, seed=4)]
    inner = Recorder(engine(300))
    outer = around(inner, "readout+zne", exact=False, readout="circuits")
    handle = outer.send(asked, seed=2)
    assert len(inner.calls) == 1
    for one, other in zip(outer.collect(handle), outer.run(asked, seed=2), strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.standard_errors, other.standard_errors)


def test_a_raw_request_is_the_devices_own_answer() -> None:
    asked = request(KYIV, 2, reps=1)
    inner = Recorder(engine())
    outer = around(inner, "readout+zne")
    mitigated_values, raw = outer.run([asked, replace(asked, raw=True)])
    np.testing.assert_array_equal(raw.values, engine().run([asked])[0].values)
    assert np.abs(mitigated_values.values - raw.values).max() > 1e-4
    assert len(inner.calls) == 1
    assert "mitigation" not in raw.metadata


def test_without_samples_there_is_nothing_to_mitigate() -> None:
    asked = replace(request(KYIV, 2, reps=1), inputs=np.zeros((0, 2)))
    for text in ("zne", "readout", "cdr"):
        (found,) = around(engine(), text).run([asked])
        assert found.values.shape == (0, 2)


def test_it_opens_and_closes_the_engine() -> None:
    inner = Recorder(engine())
    with around(inner, "zne") as outer:
        assert inner.opened == 1
        assert outer.idle_seconds == 4.5
        assert outer.unmitigated is inner
    assert inner.opened == 0


def test_what_is_wrong_with_a_request_is_said_of_that_request() -> None:
    asked = request(KYIV, 2, reps=1)
    inner = Recorder(engine())
    wrong = replace(asked, inputs=np.full((1, 2), np.nan))
    with pytest.raises(UsageError, match="request 1: inputs"):
        around(inner, "zne").run([asked, wrong])
    assert not inner.calls


@pytest.mark.parametrize("text", FORMS)
def test_the_exact_gradient_is_that_of_finite_differences(text: str) -> None:
    asked = request(KYIV, 2, reps=1, batch=2)
    outer = around(engine(), text, **{**SMALL, **FORMS[text]})
    layer = ExpectationLayer(outer, asked.circuit, asked.observables, gradient="exact")
    inputs, weights = (torch.tensor(each, requires_grad=True) for each in (asked.inputs, asked.weights))

    def total(z: np.ndarray, theta: np.ndarray) -> float:
        # Squares, so that each value's own gradient counts.
        (found,) = outer.run([replace(asked, inputs=z, weights=theta)])
        return float((found.values**2).sum())

    values = layer(inputs, weights)
    assert float((values.detach() ** 2).sum()) == pytest.approx(total(asked.inputs, asked.weights), abs=1e-12)
    slopes = torch.autograd.grad((values**2).sum(), (inputs, weights))
    step = 1e-5
    for which, (array, slope) in enumerate(zip((asked.inputs, asked.weights), slopes, strict=True)):
        random = np.random.default_rng(which)
        for _ in range(3):
            along = random.normal(size=array.shape)
            ends = []
            for sign in (1.0, -1.0):
                moved = [asked.inputs, asked.weights]
                moved[which] = array + sign * step * along
                ends.append(total(*moved))
            # Central differences are off by step^2 and by rounding over step: about 1e-10.
            assert float((slope.numpy() * along).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


def test_the_exponentials_gradient_is_that_of_finite_differences() -> None:
    asked = request(KYIV, 2, reps=1, batch=2)
    outer = around(engine(), "readout+zne", extrapolation="exponential")
    weights = torch.tensor(asked.weights, requires_grad=True)
    inputs = torch.tensor(asked.inputs)
    assert torch.autograd.gradcheck(
        lambda theta: outer.expectations(asked.circuit, asked.observables, inputs, theta), (weights,), atol=1e-6
    )


@pytest.mark.parametrize("text", FORMS)
def test_parameter_shift_is_exact(text: str) -> None:
    """Local folding leaves every angle alone in its rotation; other techniques leave the angles where they are."""
    asked = request(KYIV, 2, reps=1, batch=2)
    outer = around(engine(), text, **{**SMALL, **FORMS[text]})
    slopes = []
    for gradient in ("exact", "parameter-shift"):
        layer = ExpectationLayer(outer, asked.circuit, asked.observables, gradient=gradient)
        weights = torch.tensor(asked.weights, requires_grad=True)
        values = layer(torch.tensor(asked.inputs), weights)
        slopes.append(torch.autograd.grad((values**2).sum(), weights)[0])
    torch.testing.assert_close(slopes[0], slopes[1], atol=1e-10, rtol=0.0)


def test_parameter_shift_is_one_call_of_the_engine() -> None:
    asked = request(KYIV, 2, reps=1, batch=2)
    inner = Recorder(engine())
    layer = ExpectationLayer(around(inner, "readout+zne"), asked.circuit, asked.observables, gradient="parameter-shift")
    layer(torch.tensor(asked.inputs), torch.tensor(asked.weights, requires_grad=True)).sum().backward()
    assert len(inner.calls) == 1
    assert sum(len(each.inputs) for each in inner.calls[0]) == 3 * 2 * (1 + 2 * len(asked.weights))


def test_an_engine_without_gradients_has_none_with_mitigation() -> None:
    assert not around(engine(100), "zne", exact=False).differentiable
    assert isinstance(around(engine(), "zne"), DifferentiableExecutor)


def test_training_and_evaluation_are_mitigated_apart() -> None:
    inner = engine()
    options = MitigationOptions(stack=("zne",))
    chosen = Mitigation(get_target(KYIV), options, exact=True, training=False)
    assert chosen.around(inner, "training") is inner
    assert isinstance(chosen.around(inner, "evaluation"), MitigatedExecutor)


def test_a_stack_may_be_given_by_its_name_and_is_checked() -> None:
    target = get_target(KYIV)
    with make_executor("twin", target) as inner:
        named = mitigated(inner, target, "readout+zne", exact=True)
        assert isinstance(named, MitigatedExecutor)
        assert [technique.name for technique in named.techniques] == ["readout", "zne"]
        assert mitigated(inner, target, "none", exact=True) is inner
        with pytest.raises(UsageError, match=r"Take readout\+zne"):
            mitigated(inner, target, MitigationOptions(stack=("zne", "readout")), exact=True)
        with pytest.raises(UsageError, match="unknown mitigation technique 'dd'"):
            mitigated(inner, target, MitigationOptions(stack=("dd",)), exact=True)
