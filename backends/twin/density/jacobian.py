"""All derivatives of all observables by density matrices: one backward pass for every observable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backends.observables import PauliSum
from backends.twin.density.evaluate import Density


@torch.enable_grad()
def jacobian(
    density: Density, observables: Sequence[PauliSum], inputs: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, n_inputs), (n_weights,) or (batch, n_weights) -> (batch, m), (batch, m, n_inputs), (batch, m, n_weights).

    Values, and their derivatives by the sample's inputs and by its weights. Rows do not mix: with weights of its own
    for each, one backward pass gives an observable's derivatives in all of them.
    """
    z = inputs.detach().clone().requires_grad_()
    theta = weights.detach().expand(len(inputs), weights.shape[-1]).clone().requires_grad_()
    values = density.values(observables, z, theta)
    by_inputs, by_weights = (torch.zeros(*values.shape, like.shape[1]).to(values) for like in (z, theta))
    for column in range(len(observables)):
        slopes = torch.autograd.grad(values[:, column].sum(), (z, theta), retain_graph=True, allow_unused=True)
        for into, slope in zip((by_inputs, by_weights), slopes, strict=True):
            if slope is not None:
                into[:, column] = slope.detach()
    return values.detach(), by_inputs, by_weights
