"""Adam beside torch's own: the same parameters, bit for bit."""

from __future__ import annotations

import subprocess
import sys

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from experiments.models.adam import Adam


@given(
    seed=st.integers(0, 2**32),
    rate=st.floats(1e-5, 10),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0.1, 0.9999)),
    steps=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_agrees_with_torch_bit_for_bit(
    seed: int, rate: float, betas: tuple[float, float], steps: int, dtype: torch.dtype
) -> None:
    source = torch.Generator().manual_seed(seed)
    start = [torch.randn(shape, generator=source, dtype=dtype) for shape in ((7,), (3, 5), (1,))]
    ours = [p.clone().requires_grad_(True) for p in start]
    theirs = [p.clone().requires_grad_(True) for p in start]
    mine, reference = Adam(ours, rate=rate, betas=betas), torch.optim.Adam(theirs, lr=rate, betas=betas)
    for step in range(steps):
        for place, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            # Some steps leave a parameter alone, some give it a gradient of zero.
            gradient = torch.randn(p.shape, generator=source, dtype=dtype) * (step % 3)
            p.grad, q.grad = gradient.clone(), gradient.clone()
            if place == 2 and step % 4 == 1:
                p.grad = torch.zeros_like(p)
                q.grad = torch.zeros_like(q)
        mine.step()
        reference.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_forgets_gradients() -> None:
    p = torch.zeros(3, requires_grad=True)
    optimizer = Adam([p], rate=0.1)
    p.sum().backward()
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.step()
    assert torch.equal(p, torch.zeros(3))


@pytest.mark.slow
def test_does_not_load_the_compiler() -> None:
    program = (
        "import sys, torch\nfrom experiments.models.adam import Adam\np = torch.zeros(3, requires_grad=True)\n"
        "o = Adam([p], rate=0.1)\np.sum().backward()\no.step()\nprint('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
