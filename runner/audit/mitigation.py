"""What a result says of mitigation, made again from the config and the calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.audit.checks import Findings
from runner.audit.jobs import close
from runner.config import RunConfig
from runner.mitigated import describe_mitigation
from runner.prepare import Prepared

FORECAST = 2e-3
"""Expected errors may differ by so much between machines."""
_WORDS = ("pays_from", "sentence", "worse")
"""What hangs on the last digit of the figures that are compared."""
ROUNDING = 1e-5
"""Figures stand in a result with six digits after the point."""


def check_mitigation(
    findings: Findings, result: Mapping[str, Any] | None, config: RunConfig, prepared: Prepared
) -> None:
    """That circuits and forecast follow from config and calibration; that stack and use do is seen without data.

    Args:
        findings: Where statements are noted.
        result: The run's.
        config: The run's, with devices that can be built here.
        prepared: The run's, made again.
    """
    told = None if result is None else result.get("mitigation")
    made = describe_mitigation(config, prepared.outlook, None)
    if not isinstance(told, Mapping) or made is None:
        return
    for name in ("circuits", "forecast", "device"):
        findings.test(
            _alike(told.get(name), made[name]) and says_worse(told.get(name)),
            f"result/mitigation/{name}",
            f"mitigation: {name} follows from the config and the calibration",
            f"it says {str(told.get(name))[:150]}; it is {str(made[name])[:150]}",
        )
    if told.get("chosen") is not None:
        findings.attested(
            "result/mitigation/chosen", "why the mitigation was chosen is the run's own statement",
            "the nodes stated the digest of the result that holds it",
        )  # fmt: skip


def says_worse(told: Any) -> bool:
    """Whether a forecast (or a device's entry with one) says "worse" where its own figures do, and only there.

    Where the figures are as near to the bound as they are rounded, either will do.
    """
    if not isinstance(told, Mapping):
        return True
    if "forecast" in told:
        return says_worse(told["forecast"])
    if not {"worse", "error_with", "error_without", "uncertainty"} <= told.keys():
        return True
    beyond = told["error_with"] - told["error_without"] - 2.0 * told["uncertainty"]
    return abs(beyond) < ROUNDING or bool(beyond > 0.0) == told["worse"]


def _alike(told: Any, made: Any) -> bool:
    """Whether two entries are the same, but for words: another machine rounds otherwise."""
    if isinstance(made, Mapping):
        same = isinstance(told, Mapping) and told.keys() == made.keys()
        return same and all(_alike(told[name], value) for name, value in made.items() if name not in _WORDS)
    return close(told, made, FORECAST)
