"""Angles as qiskit writes them: their value at given parameters, and whether they are linear in these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from qiskit.circuit import Parameter, ParameterExpression
from qiskit.exceptions import QiskitError

from circuits.errors import UsageError

_FAILED = (ArithmeticError, RuntimeError, TypeError, ValueError, QiskitError)
"""What qiskit raises for values and derivatives that an expression does not have, such as 1/p at 0."""

Coefficients = tuple[float, dict[Parameter, float]]


def coefficients(value: ParameterExpression) -> Coefficients | None:
    """(c, slopes) of a linear expression c + sum of slopes[p] p over its parameters; None of any other.

    It is linear where all its derivatives are numbers: values at some points do not tell |p| from p.
    """
    if isinstance(value, Parameter):
        return 0.0, {value: 1.0}
    slopes: dict[Parameter, float] = {}
    try:
        for parameter in ordered(value.parameters):
            slope = value.gradient(parameter)
            if free(slope):
                return None
            slopes[parameter] = float(slope)
        constant = float(value.bind(dict.fromkeys(slopes, 0.0)))
    except _FAILED:  # p p / p is linear, but has no value at 0
        return None
    return (constant, slopes) if all(map(math.isfinite, (constant, *slopes.values()))) else None


def is_linear(value: ParameterExpression) -> bool:
    """Whether `coefficients` has any."""
    return coefficients(value) is not None


def evaluate(expression: Any, values: Mapping[Parameter, float]) -> float:
    """An expression (or a number) at these values; those of other parameters are not needed.

    Raises:
        UsageError: It has no finite real value there.
    """
    needed = {parameter: values[parameter] for parameter in ordered(free(expression))}
    try:
        result = float(expression.bind(needed)) if needed else float(expression)
    except _FAILED:
        result = math.nan
    if math.isfinite(result):
        return result
    where = ", ".join(f"{parameter.name} = {value:g}" for parameter, value in needed.items())
    raise UsageError(
        f"{expression} in an angle is no finite real number at {where or 'any value'}.",
        "Give values where the angle and, for gradients, its derivatives exist.",
    )


def derivative(expression: ParameterExpression, parameter: Parameter) -> Any:
    """d expression / d parameter, an expression or a number.

    Raises:
        UsageError: qiskit knows none (of sign, for one).
    """
    try:
        return expression.gradient(parameter)
    except _FAILED:
        raise UsageError(
            f"the angle {expression} has no derivative by {parameter.name} that qiskit knows.",
            "Values can be had, gradients cannot: give the angle in functions that are differentiable.",
        ) from None


def free(value: Any) -> set[Parameter]:
    """The parameters of an expression; none of a number."""
    return set(getattr(value, "parameters", ()))


def ordered(parameters: Iterable[Parameter]) -> list[Parameter]:
    """By name: a fixed order for sums."""
    return sorted(parameters, key=lambda parameter: parameter.name)
