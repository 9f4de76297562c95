"""What makes a generator's sample: strings of Z that are measured, and what stands in a circuit's place in comparisons.

All strings of Z are diagonal: one circuit and the same shots give every one of them. With a readout feature k is the
expectation value of a trained diagonal observable,

    x_k = b_k + sum_j W_kj <P_j>,        P_j in {Z_i, Z_i Z_j, ...}.

To ask what the circuit adds, a network of one hidden layer takes its place, tanh(A z + a) in that of the <P_j>, with a
given multiple of its parameters.
"""

from __future__ import annotations

from itertools import combinations, islice

import torch
from qiskit.quantum_info import SparsePauliOp

from experiments.settings import ModelSettings


def z_strings(qubits: int, count: int) -> tuple[SparsePauliOp, ...]:
    """The first `count` of Z on each qubit, ZZ on each pair, near ones first, ZZZ on each triple, and so on."""

    def places() -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for weight in range(1, qubits + 1):
            if len(found) >= count:
                break
            found += sorted(combinations(range(qubits), weight), key=lambda p: (p[-1] - p[0], p))
        return found

    return tuple(
        SparsePauliOp.from_sparse_list([("Z" * len(place), list(place), 1.0)], num_qubits=qubits)
        for place in islice(places(), count)
    )


def circuit_parameters(settings: ModelSettings, weights: int) -> int:
    """Parameters of the quantum generator: angles, and the readout where there is one."""
    return weights + (settings.features * (settings.measured + 1) if settings.trained_readout else 0)


def hidden_units(settings: ModelSettings, weights: int) -> int:
    """Hidden units of the classical generator with (nearly) the settings' multiple of those parameters.

    Args:
        settings: With generator = "classical:FACTOR".
        weights: Angles of the circuit.
    """
    factor = float(settings.generator.split(":")[1])
    wanted = factor * circuit_parameters(settings, weights) - settings.features
    return max(1, round(wanted / (settings.qubits + 1 + settings.features)))


def hidden_layer(flat: torch.Tensor, latents: torch.Tensor, units: int) -> torch.Tensor:
    """tanh(A z + a): (N, n) latents -> (N, units), of one vector: A row by row, then a."""
    n = latents.shape[1]
    weight, bias = flat[: units * n].reshape(units, n), flat[units * n :]
    return torch.tanh(torch.nn.functional.linear(latents, weight, bias))


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two samples (N, d), (M, d): 0 in the mean for one distribution.

    Szekely and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013), without bias: pairs of a record with itself are left
    out.
    """
    n, m = len(x), len(y)

    def within(z: torch.Tensor) -> torch.Tensor:
        return torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").sum() / (len(z) * (len(z) - 1))

    between = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").sum() / (n * m)
    return 2 * between - within(x) - within(y)
