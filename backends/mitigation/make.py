"""From options to an executor that mitigates."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from backends.mitigation.executor import MitigatedExecutor
from backends.mitigation.stack import parse
from backends.mitigation.types import Context, MitigationOptions, Technique
from backends.protocol import Executor
from backends.target import Target

Purpose = Literal["training", "evaluation"]

_CLASSES = {
    "readout": "Readout",
    "symmetry": "Symmetry",
    "ddd": "Ddd",
    "twirl": "Twirl",
    "zne": "Zne",
    "lre": "Lre",
    "pec": "Pec",
    "cdr": "Cdr",
}
"""Each in a module of its name: Mitiq and cirq load for what is asked."""


def techniques(context: Context) -> tuple[Technique, ...]:
    """The techniques of a stack, innermost first.

    Raises:
        UsageError: No stack (`stack.parse`), an option that a technique cannot take, or a target that it cannot work
            on.
    """
    found = []
    for name in parse("+".join(context.options.stack)):
        module = import_module(f"backends.mitigation.{name}")
        technique: Technique = getattr(module, _CLASSES[name])(context)
        found.append(technique)
    return tuple(found)


def mitigated(inner: Executor, target: Target, options: MitigationOptions | str, *, exact: bool) -> Executor:
    """`inner` with the stack around it; `inner` itself where the stack is empty.

    Args:
        inner: Runs circuits on `target`.
        target: Where they were compiled for.
        options: See `types.MitigationOptions`; or a stack alone, as "readout+zne".
        exact: Whether `inner` gives exact values, or samples shots.

    Raises:
        UsageError: As `techniques`.
    """
    if isinstance(options, str):
        options = MitigationOptions(stack=parse(options))
    if not options.stack:
        return inner
    found = techniques(Context(target, options, exact))
    return MitigatedExecutor(inner, found, "+".join(options.stack))


@dataclass(frozen=True)
class Mitigation:
    """What a model mitigates, and when.

    Attributes:
        target: Where its circuits run.
        options: How.
        exact: Whether its engine gives exact values.
        training, evaluation: Whether the generator's steps, and its samples for scores, are mitigated.
    """

    target: Target
    options: MitigationOptions
    exact: bool
    training: bool = True
    evaluation: bool = True

    def around(self, executor: Executor, purpose: Purpose) -> Executor:
        """The executor for a purpose.

        Raises:
            UsageError: As `techniques`.
        """
        wanted = self.training if purpose == "training" else self.evaluation
        return mitigated(executor, self.target, self.options, exact=self.exact) if wanted else executor
