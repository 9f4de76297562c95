"""Angles that are no linear function of the parameters, as parameters of their own.

The engine takes angles that are linear in its parameters. Where an angle is not, such as 2 (pi - x0) (pi - x1) of the
ZZ feature map, the whole angle becomes a parameter; its value and its slopes are worked out beside the engine, with
qiskit's own expressions:

    df/dp = sum_a (df/da) (da/dp)    over the engine's parameters a.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression
from torch import Tensor

from backends.protocol import FloatArray
from backends.twin.expressions import derivative, evaluate, free, is_linear, ordered


def straighten(circuit: QuantumCircuit) -> tuple[QuantumCircuit, dict[Parameter, ParameterExpression]]:
    """The circuit with a parameter in place of every angle that is not linear, and which angle each stands for."""
    stands: dict[Parameter, ParameterExpression] = {}
    known: dict[ParameterExpression, Parameter] = {}
    out = circuit.copy_empty_like()
    for instruction in circuit.data:
        operation = instruction.operation
        values, bent = list(operation.params), False
        for position, value in enumerate(values):
            if not isinstance(value, ParameterExpression) or is_linear(value):
                continue
            if value not in known:
                known[value] = Parameter(f"angle {len(known)} of {circuit.name}")
                stands[known[value]] = value
            values[position], bent = known[value], True
        if bent:
            operation = operation.to_mutable()
            operation.params = values
        out.append(operation, instruction.qubits, instruction.clbits, copy=False)
    return (out, stands) if stands else (circuit, {})


@dataclass(frozen=True)
class _Curve:
    """One angle that is not linear: its expression, and the columns that its parameters stand in."""

    expression: ParameterExpression
    columns: dict[Parameter, int]

    @classmethod
    def of(cls, expression: ParameterExpression, column: dict[Parameter, int]) -> _Curve:
        return cls(expression, {parameter: column[parameter] for parameter in ordered(expression.parameters)})

    @cached_property
    def slopes(self) -> dict[int, Any]:
        """Column -> derivative. Found when a gradient is wanted: an angle without any may have values."""
        return {column: derivative(self.expression, parameter) for parameter, column in self.columns.items()}

    def evaluate(self, what: Any, rows: FloatArray) -> FloatArray:
        """(batch, columns) -> (batch,)."""
        if not free(what):
            return np.full(len(rows), evaluate(what, {}))
        return np.array([evaluate(what, {p: float(row[c]) for p, c in self.columns.items()}) for row in rows])


class Angles:
    """From a circuit's parameters to those of the engine, and gradients back.

    Args:
        given: The P parameters of the circuit, in the order of its columns.
        wanted: The A parameters of the engine, in the order of its columns.
        stands: From `straighten`.

    Values and gradients raise a UsageError where an angle, or its derivative, has no finite real value.
    """

    def __init__(
        self, given: Sequence[Parameter], wanted: Iterable[Parameter], stands: dict[Parameter, ParameterExpression]
    ) -> None:
        column = {parameter: number for number, parameter in enumerate(given)}
        self.width = len(given)
        self.curves: dict[int, _Curve] = {}
        direct = []
        for position, parameter in enumerate(wanted):
            if parameter in stands:
                self.curves[position] = _Curve.of(stands[parameter], column)
            direct.append(column.get(parameter, 0))
        self.direct = np.array(direct, dtype=np.int64)

    def values(self, rows: FloatArray) -> FloatArray:
        """(batch, P) -> (batch, A), radians."""
        out = np.take(rows, self.direct, axis=1) if self.width else np.zeros((len(rows), 0))
        for position, curve in self.curves.items():
            out[:, position] = curve.evaluate(curve.expression, rows)
        return out

    def pull_back(self, by_angles: FloatArray, rows: FloatArray) -> FloatArray:
        """(batch, m, A) gradients by the engine's parameters, (batch, P) -> (batch, m, P) by the circuit's."""
        out = np.zeros((*by_angles.shape[:2], self.width))
        for position, column in enumerate(self.direct):
            curve = self.curves.get(position)
            if curve is None:
                out[:, :, column] += by_angles[:, :, position]
                continue
            for read, slope in curve.slopes.items():
                out[:, :, read] += by_angles[:, :, position] * curve.evaluate(slope, rows)[:, None]
        return out

    def tensor(self, rows: Tensor) -> Tensor:
        """`values` as a part of torch's graph: (batch, P) -> (batch, A)."""
        if not self.curves:
            return rows[:, torch.as_tensor(self.direct, device=rows.device)]
        result: Tensor = _Apply.apply(rows, self)
        return result


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, angles: Angles) -> Tensor:
        ctx.angles, ctx.rows = angles, rows.detach().cpu().to(torch.float64).numpy()
        return torch.as_tensor(angles.values(ctx.rows), dtype=rows.dtype, device=rows.device)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        outer = cotangent.cpu().to(torch.float64).numpy()[:, None, :]
        back = ctx.angles.pull_back(outer, ctx.rows)[:, 0]
        return torch.as_tensor(back, dtype=cotangent.dtype, device=cotangent.device), None
