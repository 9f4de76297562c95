"""What a snapshot file may say: every value that is used is checked, for the file may come from anybody.

Only what the target needs is kept. No qiskit import here, so that `qrun backends show FILE` is quick.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from circuits.errors import QrunError

FORMAT = "qrun-snapshot-1"
MAX_QUBITS = 4096
"""More than any device with a calibration has."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_GATE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_TIMING = ("granularity", "min_length", "pulse_alignment", "acquire_alignment")
_SI = ("", "s", "ms", "us", "µs", "ns", "ps", "Hz", "kHz", "MHz", "GHz", "THz")
_RATES = ("gate_error", "readout_error", "prob_meas0_prep1", "prob_meas1_prep0")
_NEVER_NEGATIVE = ("gate_length", "readout_length", "T1", "T2")


def check_document(document: Any, what: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(name, configuration, properties) of a parsed snapshot file, reduced to what was checked.

    Args:
        document: The parsed JSON.
        what: Names the file in errors.

    Raises:
        QrunError: In one line, which value is wrong, where it stands and what it should be.
    """
    check = _Check(what)
    whole = check.table(document, "the file")
    if whole.get("format") != FORMAT:
        check.fail("format", f"has to be {FORMAT!r}")
    name = check.text(whole.get("name"), "name", _NAME)
    configuration = check.configuration(whole.get("configuration"))
    return name, configuration, check.properties(whole.get("properties"), configuration["n_qubits"])


class _Check:
    def __init__(self, what: str) -> None:
        self.what = what

    def fail(self, where: str, why: str) -> None:
        raise QrunError(f"{self.what} rejected: {where} {why}.", "Save it anew: `qrun backends save NAME FILE`.")

    def table(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(where, "has to be an object")
        found: dict[str, Any] = value
        return found

    def rows(self, value: Any, where: str, *, at_most: int = 1 << 20) -> list[Any]:
        if not isinstance(value, list) or len(value) > at_most:
            self.fail(where, f"has to be a list of at most {at_most}")
        found: list[Any] = value
        return found

    def text(self, value: Any, where: str, pattern: re.Pattern[str] | None = None) -> str:
        if not isinstance(value, str) or len(value) > 1024 or (pattern is not None and not pattern.fullmatch(value)):
            self.fail(where, "has to be a plain name" if pattern is not None else "has to be a text")
        return str(value)

    def whole_number(self, value: Any, where: str, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(where, f"has to be a whole number from {low} to {high}")
        return int(value)

    def number(self, value: Any, where: str, low: float, high: float) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        if not good or not low <= value <= high:
            limits = f"from {low:g} to {high:g}" if math.isfinite(high) else "and not negative" if low == 0 else ""
            self.fail(where, f"has to be a finite number {limits}".rstrip())
        found: float = value  # an int stays one: the figures have to be those of the device, to the last bit
        return found

    def configuration(self, value: Any) -> dict[str, Any]:
        source = self.table(value, "configuration")
        qubits = self.whole_number(source.get("n_qubits"), "configuration.n_qubits", 1, MAX_QUBITS)

        def names(key: str) -> list[str]:
            where = f"configuration.{key}"
            return [self.text(n, where, _GATE) for n in self.rows(source.get(key), where, at_most=1000)]

        timing = self.table(source.get("timing_constraints") or {}, "configuration.timing_constraints")
        kept: dict[str, Any] = {
            "backend_name": self.text(source.get("backend_name"), "configuration.backend_name", _NAME),
            "backend_version": self.text(source.get("backend_version") or "", "configuration.backend_version"),
            "n_qubits": qubits,
            "basis_gates": names("basis_gates"),
            "gates": self.gates(source.get("gates"), qubits),
            # Not used by the target, and asked for by the Runtime's class.
            **{"local": False, "simulator": False, "conditional": False, "open_pulse": False, "memory": False},
            "coupling_map": None,
            "timing_constraints": {
                key: self.whole_number(timing[key], f"configuration.timing_constraints.{key}", 1, 1 << 20)
                for key in _TIMING
                if key in timing
            },
        }
        if source.get("supported_instructions") is not None:
            kept["supported_instructions"] = names("supported_instructions")
        if source.get("dt") is not None:
            kept["dt"] = self.number(source["dt"], "configuration.dt", 1e-15, 1e6)
        # What a job costs depends on these, in microseconds; a few calibrations have null or an empty list.
        if source.get("default_rep_delay") is not None:
            kept["default_rep_delay"] = self.number(
                source["default_rep_delay"], "configuration.default_rep_delay", 0, 1e9
            )
        if source.get("rep_times"):
            times = self.rows(source["rep_times"], "configuration.rep_times", at_most=1000)
            kept["rep_times"] = [self.number(time, "configuration.rep_times", 0, 1e9) for time in times]
        return kept

    def gates(self, value: Any, qubits: int) -> list[dict[str, Any]]:
        gates = []
        for number, entry in enumerate(self.rows(value, "configuration.gates", at_most=1000)):
            where = f"configuration.gates[{number}]"
            gate = self.table(entry, where)
            kept: dict[str, Any] = {
                "name": self.text(gate.get("name"), f"{where}.name", _GATE),
                "parameters": [
                    self.text(p, f"{where}.parameters") for p in self.rows(gate.get("parameters") or [], where)
                ],
                "qasm_def": "",
            }
            if gate.get("coupling_map"):
                pairs = self.rows(gate["coupling_map"], f"{where}.coupling_map")
                kept["coupling_map"] = [self.qubits(pair, f"{where}.coupling_map", qubits) for pair in pairs]
            gates.append(kept)
        return gates

    def qubits(self, value: Any, where: str, available: int) -> list[int]:
        found = [self.whole_number(q, where, 0, available - 1) for q in self.rows(value, where, at_most=8)]
        if not found or len(set(found)) != len(found):
            self.fail(where, "has to name distinct qubits")
        return found

    def properties(self, value: Any, qubits: int) -> dict[str, Any]:
        source = self.table(value, "properties")
        rows = self.rows(source.get("qubits"), "properties.qubits")
        if len(rows) != qubits:
            self.fail("properties.qubits", f"has {len(rows)} entries for the {qubits} qubits of the configuration")
        gates = []
        for number, entry in enumerate(self.rows(source.get("gates"), "properties.gates")):
            where = f"properties.gates[{number}]"
            gate = self.table(entry, where)
            gates.append(
                {
                    "gate": self.text(gate.get("gate"), f"{where}.gate", _GATE),
                    "qubits": self.qubits(gate.get("qubits"), f"{where}.qubits", qubits),
                    "parameters": self.figures(gate.get("parameters"), f"{where}.parameters"),
                }
            )
        return {
            "backend_name": self.text(source.get("backend_name"), "properties.backend_name", _NAME),
            "backend_version": self.text(source.get("backend_version") or "", "properties.backend_version"),
            "last_update_date": self.date(source.get("last_update_date"), "properties.last_update_date"),
            "qubits": [self.figures(row, f"properties.qubits[{number}]") for number, row in enumerate(rows)],
            "gates": gates,
            "general": [],
        }

    def figures(self, value: Any, where: str) -> list[dict[str, Any]]:
        """Named values with a unit."""
        kept = []
        for entry in self.rows(value, where, at_most=1000):
            figure = self.table(entry, where)
            name, unit = self.text(figure.get("name"), f"{where}.name"), figure.get("unit", "")
            if unit not in _SI:
                self.fail(f"{where}.{name}.unit", "has to be an SI unit of time or frequency, or empty")
            low = 0.0 if name in (*_RATES, *_NEVER_NEGATIVE) else -math.inf
            high = 1.0 if name in _RATES else math.inf
            value = figure.get("value")
            number = self.number(int(value) if isinstance(value, bool) else value, f"{where}.{name}", low, high)
            kept.append({"name": name, "unit": unit, "value": number, "date": None})
        return kept

    def date(self, value: Any, where: str) -> str:
        text = self.text(value, where)
        try:
            if datetime.fromisoformat(text).tzinfo is None:
                self.fail(where, "has to have a time zone")
        except ValueError:
            self.fail(where, "has to be a date in ISO 8601")
        return text


def unknown(names: Iterable[str], known: Callable[[str], bool]) -> list[str]:
    """Those of `names` that are not known, sorted."""
    return sorted({name for name in names if not known(name)})
