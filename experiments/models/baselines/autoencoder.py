"""An autoencoder: benign records pass a narrow middle and come back; what does not come back is anomalous."""

from __future__ import annotations

from itertools import pairwise

import torch

from experiments.models.baselines.base import FloatArray, Training


class Autoencoder:
    """Features -> hidden -> middle -> hidden -> features, ReLU between, trained with Adam on squared errors.

    Args:
        hidden: Width of the outer layers.
        middle: Width of the narrow one; with as few features, half of the features.
        epochs: Over the training records.
        batch: Records a step.
        rate: Adam's step size.
        noise: Standard deviation of what is added to the input in training.
    """

    def __init__(
        self,
        *,
        hidden: int = 32,
        middle: int = 5,
        epochs: int = 30,
        batch: int = 128,
        rate: float = 2e-3,
        noise: float = 0.05,
    ) -> None:
        self.hidden, self.middle, self.epochs = hidden, middle, epochs
        self.batch, self.rate, self.noise = batch, rate, noise

    def fit(self, data: Training) -> None:
        """Fit on benign training records."""
        source = torch.Generator().manual_seed(data.seed % 2**63)
        features = data.train.shape[1]
        middle = self.middle if self.middle < features else max(1, features // 2)
        widths = [features, self.hidden, middle, self.hidden, features]
        layers: list[torch.nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            linear = torch.nn.Linear(fan_in, fan_out)
            bound = fan_in**-0.5
            with torch.no_grad():
                for values in (linear.weight, linear.bias):
                    values.copy_((2 * torch.rand(values.shape, generator=source) - 1) * bound)
            layers += [linear, torch.nn.ReLU()]
        self._net = torch.nn.Sequential(*layers[:-1])
        x = torch.as_tensor(data.train, dtype=torch.float32)
        adam = torch.optim.Adam(self._net.parameters(), lr=self.rate)
        for _ in range(self.epochs):
            order = torch.randperm(len(x), generator=source)
            for rows in order.split(self.batch):
                clean = x[rows]
                moved = clean + self.noise * torch.randn(clean.shape, generator=source)
                adam.zero_grad(set_to_none=True)
                ((self._net(moved) - clean) ** 2).sum(1).mean().backward()
                adam.step()

    def scores(self, x: FloatArray) -> FloatArray:
        """(N,) squared reconstruction errors."""
        with torch.no_grad():
            clean = torch.as_tensor(x, dtype=torch.float32)
            out: FloatArray = ((self._net(clean) - clean) ** 2).sum(1).double().numpy()
        return out
