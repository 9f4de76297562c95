"""`qrun mitigation compare`: from options to rows; what a file has already is not computed again."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from backends.catalog import get_target
from backends.mitigation.compare import STACKS, Comparison, Row, Setup
from backends.mitigation.stack import TECHNIQUES, parse
from backends.mitigation.types import MitigationOptions
from circuits.compile import compile_ansatz
from circuits.errors import QrunError, UsageError
from circuits.qgan import generator
from runner.config import read_toml
from runner.row_file import RowFile
from runner.seeds import derive
from runner.settings import TECHNIQUE_OPTIONS, MitigationSettings

FORMAT = "qrun-mitigation-compare/1"
BACKENDS = ("fake_kyiv", "fake_torino", "fake_fez")
QUBITS = (4, 8)
MOST_QUBITS = 10


@dataclass(frozen=True)
class Asked:
    """What is compared; every name checked.

    Attributes:
        backends, qubits, shots, stacks: Every combination is a row; shots None for exact values.
        setup: Parameter sets, repetitions, engine ...
        reps, entanglement: Of the generator whose circuit it is.
    """

    backends: tuple[str, ...]
    qubits: tuple[int, ...]
    shots: tuple[int | None, ...]
    stacks: tuple[str, ...]
    setup: Setup
    reps: int = 4
    entanglement: str = "reverse_linear"

    @property
    def keys(self) -> list[Key]:
        """Of all rows, in the order of the table."""
        return [(b, q, s, t) for b in self.backends for q in self.qubits for s in self.shots for t in self.stacks]

    def about(self) -> dict[str, Any]:
        """What all rows are of, as plain values."""
        return {"format": FORMAT, "reps": self.reps, "entanglement": self.entanglement, **asdict(self.setup)}


Key = tuple[str, int, int | None, str]
"""(backend, qubits, shots, stack)."""


def key_of(row: Row) -> Key:
    """What a row is known by."""
    return row.backend, row.qubits, row.shots, row.stack


def asked(
    *,
    backends: Sequence[str] = (),
    qubits: Sequence[int] = (),
    shots: Sequence[str] = (),
    stacks: Sequence[str] = (),
    setup: Setup,
    reps: int = 4,
    entanglement: str = "reverse_linear",
) -> Asked:
    """Check what is asked for; what is left out gets the table's own values.

    Args:
        backends: Names.
        qubits: Of the generator.
        shots: Numbers, or "exact".
        stacks: Techniques and stacks.
        setup: See `Setup`.
        reps: Of EfficientSU2.
        entanglement: The same.

    Raises:
        UsageError: An unknown name or a number that cannot be.
    """
    from backends.catalog import canonical_name

    for number in qubits:
        if not 2 <= number <= MOST_QUBITS:
            raise UsageError(f"--qubits {number}: 2 to {MOST_QUBITS}, for the ideal values are computed exactly.")
    names = tuple(dict.fromkeys("none" if not each else "+".join(each) for each in map(_stack, stacks)))
    if not names:
        names = tuple(s for s in STACKS if setup.readout_error or "readout" not in parse(s))
    return Asked(
        tuple(dict.fromkeys(canonical_name(name) for name in backends)) or BACKENDS,
        tuple(dict.fromkeys(qubits)) or QUBITS,
        tuple(dict.fromkeys(map(_shots, shots))) or (None,),
        ("none", *(name for name in names if name != "none")),
        setup,
        reps,
        entanglement,
    )


def options_of(file: Path | None) -> MitigationOptions:
    """The techniques' options in a config file's table [mitigation]; of the table's other keys none counts here.

    Raises:
        UsageError: The file cannot be read, or an option is none or cannot be.
    """
    from pydantic import ValidationError

    table = read_toml(file).get("mitigation", {}) if file is not None else {}
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [mitigation] is a table.")
    given = {name: value for name, value in table.items() if name not in ("stack", "apply", "budget")}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in TECHNIQUE_OPTIONS:
            close = difflib.get_close_matches(name, TECHNIQUE_OPTIONS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(TECHNIQUE_OPTIONS)}."
            raise UsageError(f"{file}: mitigation.{name} is unknown.", hint)
        try:
            settings = MitigationSettings.model_validate({"stack": TECHNIQUE_OPTIONS[name][0][0], name: value})
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UsageError(f"{file}: mitigation.{name} = {value!r}: {why}.") from None
        values[name] = getattr(settings, name)
    return MitigationOptions(**values)


def _stack(text: str) -> tuple[str, ...]:
    if text.strip().lower() == "auto":
        raise UsageError("auto is a choice among techniques.", f"Name some: {', '.join(TECHNIQUES)}, readout+zne.")
    return parse(text)


def _shots(text: str) -> int | None:
    if text.strip().lower() == "exact":
        return None
    digits = text.strip().replace(",", "").replace("_", "")
    if not digits.isdecimal() or not 2 <= int(digits) <= 10_000_000:
        raise UsageError(f"--shots {text}: a number from 2 to 10,000,000, or exact.")
    return int(digits)


Progress = Callable[[int, int, Row | None, str], None]
"""Told of (rows done, rows in all, the last one, what is being done)."""


def compare(asked: Asked, *, out: Path | None, progress: Progress) -> list[Row]:
    """All rows, in the order of the table.

    Args:
        asked: From `asked`.
        out: File of finished rows; made, or gone on with.
        progress: See `Progress`.

    Raises:
        UsageError: A device without so many qubits; or as `RowFile`.
        QrunError: The device has no layout.
    """
    file: RowFile[Row] = RowFile(out, asked.about(), read=_read, write=Row.to_json, key=key_of)
    keys = asked.keys
    try:
        done = sum(key in file.rows for key in keys)
        progress(done, len(keys), None, "reading calibrations")
        for backend in asked.backends:
            for qubits in asked.qubits:
                missing = [key for key in keys if key[:2] == (backend, qubits) and key not in file.rows]
                if not missing:
                    continue
                for row in _rows(asked, backend, qubits, missing):
                    file.add(row)
                    done += 1
                    progress(done, len(keys), row, "")
        return [file.rows[key] for key in keys]
    finally:
        file.close()


def _rows(asked: Asked, backend: str, qubits: int, missing: Sequence[Key]) -> Iterator[Row]:
    target = get_target(backend)
    if target.num_qubits is not None and qubits > target.num_qubits:
        raise UsageError(f"--qubits {qubits}: {backend} has {target.num_qubits} qubits.")
    if target.backend is None:
        raise UsageError("the ideal target has no errors to mitigate.", "Name devices (`qrun backends list`).")
    ansatz = generator(qubits, asked.reps, asked.entanglement)
    # The layout of a run with this seed.
    circuit = compile_ansatz(ansatz, target.backend, seed=derive(asked.setup.seed, "layout") % 2**31)
    if len(circuit.physical_qubits) > MOST_QUBITS:
        raise QrunError(
            f"{qubits} qubits take {len(circuit.physical_qubits)} of {backend}'s, and the exact twin of more than "
            f"{MOST_QUBITS} is too slow for a table.",
            "Compare fewer qubits, or another device.",
        )
    with Comparison(target, circuit, asked.setup) as comparison:
        for shots in asked.shots:
            stacks = [parse(key[3]) for key in missing if key[2] == shots]
            for row in comparison.rows(stacks, shots) if stacks else ():
                yield replace(row, backend=backend)  # a snapshot is called by its file


def _read(values: dict[str, Any]) -> Row:
    row = Row(**values)
    numbers = (row.bias, row.spread, row.reported, row.error, row.uncertainty, row.circuits, row.seconds)
    if not isinstance(row.backend, str) or not isinstance(row.stack, str) or type(row.qubits) is not int:
        raise ValueError("not a row")
    if not (row.shots is None or type(row.shots) is int):
        raise ValueError("not a row")
    if not all(n is None or (isinstance(n, float | int) and n >= 0) for n in (*numbers, row.gain)):
        raise ValueError("not a row")
    if (row.error is None) == (row.why_not == ""):
        raise ValueError("not a row")
    return row


def to_json(asked: Asked, rows: Sequence[Row]) -> dict[str, Any]:
    """As plain values."""
    return {**asked.about(), "rows": [row.to_json() for row in rows]}
