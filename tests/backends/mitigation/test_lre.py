"""Layerwise Richardson extrapolation: Mitiq's chunks and coefficients on native gates."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from mitiq.lre import combine_results
from mitiq.lre.multivariate_scaling import get_scale_factor_vectors

from backends.mitigation.lre import Lre
from backends.mitigation.tokens import VIRTUAL, to_tokens
from circuits.errors import UsageError
from tests.backends.mitigation.devices import DEVICES, around, compiled, context, expand, noiseless, request, twin


@pytest.mark.parametrize(("degree", "chunks"), [(1, 2), (2, 2), (2, 3), (3, 1)])
def test_circuits_and_coefficients_are_mitiqs(degree: int, chunks: int) -> None:
    asked = request("fake_kyiv", 3, reps=2)
    found = expand("fake_kyiv", "lre", asked, lre_degree=degree, lre_chunks=chunks)
    assert len(found.parts) == comb(degree + chunks, degree)
    values = list(np.random.default_rng(0).normal(size=len(found.parts)))
    tokens = to_tokens(asked.circuit.circuit)
    assert np.dot(found.coefficients, values) == pytest.approx(combine_results(values, tokens, degree, 1, chunks))
    assert found.parts[0].circuit is asked.circuit
    # A chunk at scale s has s times its gates: all circuits together fit the scales that Mitiq names.
    scales = np.array(get_scale_factor_vectors(tokens, degree, 1, chunks))
    gates = [sum(n for name, n in part.circuit.gate_counts.items() if name not in VIRTUAL) for part in found.parts]
    of_chunks, rest, *_ = np.linalg.lstsq(scales, np.array(gates), rcond=None)
    np.testing.assert_allclose(scales @ of_chunks, gates, atol=1e-9)
    np.testing.assert_allclose(of_chunks, np.round(of_chunks), atol=1e-9)
    assert rest.size == 0 or rest[0] < 1e-9


def test_one_chunk_is_richardson() -> None:
    asked = request("fake_torino", 3, reps=2)
    one = expand("fake_torino", "lre", asked, lre_degree=2, lre_chunks=1)
    zne = expand("fake_torino", "zne", asked, scale_factors=(1, 3, 5), extrapolation="richardson")
    np.testing.assert_allclose(one.coefficients, zne.coefficients, atol=1e-12)
    assert [part.circuit.gate_counts for part in one.parts] == [part.circuit.gate_counts for part in zne.parts]


@pytest.mark.parametrize("device", DEVICES)
def test_it_helps(device: str) -> None:
    asked = request(device, 4, batch=4)
    truth = noiseless(asked)
    plain = np.abs(twin(device).run([asked])[0].values - truth).mean()
    assert plain / np.abs(around(device, "lre").run([asked])[0].values - truth).mean() >= 5


def test_more_chunks_than_layers_are_refused() -> None:
    asked = request("fake_kyiv", 1, reps=0)
    layers = len(to_tokens(asked.circuit.circuit))
    with pytest.raises(UsageError, match=f"more than the {layers} layers"):
        expand("fake_kyiv", "lre", asked, lre_chunks=layers + 1, lre_degree=1)
    expand("fake_kyiv", "lre", asked, lre_chunks=layers, lre_degree=1)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"lre_degree": 0}, "lre_degree"),
        ({"lre_chunks": 0}, "lre_chunks"),
        ({"lre_degree": 2.0}, "whole number"),
        ({"lre_chunks": True}, "whole number"),
        ({"lre_degree": 9, "lre_chunks": 3}, "220 circuits"),
        ({"lre_degree": 11, "lre_chunks": 1}, "degree 10"),
        ({"lre_degree": 1, "lre_chunks": 40}, "beyond"),
        ({"folding": "half"}, "'half'"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Lre(context("fake_kyiv", "lre", **options))


def test_the_overhead_is_known_before() -> None:
    technique = Lre(context("fake_kyiv", "lre", lre_degree=2, lre_chunks=3))
    assert technique.circuits(compiled("fake_kyiv", 2), 3) == 30
