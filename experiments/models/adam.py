"""Adam, without what torch's own brings along.

torch.optim loads torch's compiler with the first optimizer: 70 MB of memory and two seconds in every process, of which
a step of some hundred parameters uses nothing. The arithmetic is that of torch.optim.Adam on the CPU, operation by
operation, so that parameters agree to the last bit (a test holds that).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Adam:
    """Gradient steps by D. P. Kingma and J. Ba, "Adam" (ICLR 2015), with bias correction and without weight decay.

    For a parameter p with gradient g, in step t:

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        p = p - rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)

    Args:
        parameters: Leaves, of any shapes; changed in place.
        rate: Step size.
        betas: b1 and b2.
        epsilon: Keeps the quotient finite.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        *,
        rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.rate, self.betas, self.epsilon = rate, betas, epsilon
        self._mean = [torch.zeros_like(p) for p in self.parameters]
        self._square = [torch.zeros_like(p) for p in self.parameters]
        self._steps = 0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self._steps += 1
        first, second = self.betas
        size = self.rate / (1 - first**self._steps)
        scale = (1 - second**self._steps) ** 0.5
        for parameter, mean, square in zip(self.parameters, self._mean, self._square, strict=True):
            gradient = parameter.grad
            if gradient is None:
                continue
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            parameter.addcdiv_(mean, (square.sqrt() / scale).add_(self.epsilon), value=-size)
