"""Devices and modes of torch in which the engine computes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

from circuits.errors import UsageError


def torch_device(device: str | torch.device) -> torch.device:
    """The device of that name, if torch can compute there; "auto" is a GPU where there is one.

    Raises:
        UsageError: It cannot; with torch's reason.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        if (torch.zeros(1, device=found) + 1).item() != 1:
            raise RuntimeError("it does not compute")
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0].rstrip(".")
        raise UsageError(f"torch cannot compute on {device!r}: {reason}.", 'Take "cpu" or "auto".') from None
    return found


class _OneThread:
    """Torch with one thread of its own. Entered by several of Python's threads, the last one out puts back what was.

    Torch keeps the number by thread, and gives a new thread the one that was set last anywhere: a thread that first
    calls torch while another is inside starts, and stays, with one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    def __enter__(self) -> None:
        with self._lock:
            self._before = max(self._before if self._inside else 1, torch.get_num_threads())
            self._inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            torch.set_num_threads(self._before)


_ONE_THREAD = _OneThread()


def plain_modes(device: torch.device) -> AbstractContextManager[object]:
    """Outside of inference mode and autocast, and with one of torch's own threads on a CPU.

    What is made in inference mode can never be differentiated, and the engine keeps buffers and constants for later
    calls; autocast would compute in another precision than was asked for. Torch's threads split every small product,
    and wait for each other after each: with one core busy elsewhere a step takes many times longer.
    """
    inference, autocast = torch.is_inference_mode_enabled(), torch.is_autocast_enabled(device.type)
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if not inference and not autocast and threads == 1:
        return nullcontext()
    stack = ExitStack()
    if threads > 1:
        stack.enter_context(_ONE_THREAD)
    if inference:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())  # Leaving inference mode switches gradients on.
    if autocast:
        stack.enter_context(torch.autocast(device.type, enabled=False))
    return stack


def plainly(backward: Callable[..., Any]) -> Callable[..., Any]:
    """The backward pass of an autograd function in `plain_modes`: it may run long after they were left."""

    @functools.wraps(backward)
    def run(ctx: Any, *cotangents: torch.Tensor) -> Any:
        with plain_modes(cotangents[0].device):
            return backward(ctx, *cotangents)

    return run
