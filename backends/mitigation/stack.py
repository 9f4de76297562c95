"""Names of techniques, and which of them may stand together in which order."""

from __future__ import annotations

import difflib
import re

from circuits.errors import UsageError

TECHNIQUES: dict[str, str] = {
    "readout": "undoes readout errors in the observables; no further circuit",
    "symmetry": "keeps what respects the ansatz's Pauli symmetries; no further circuit",
    "ddd": "fills idle time with pulses that cancel (digital dynamical decoupling)",
    "twirl": "averages over random Paulis around two-qubit gates (Pauli twirling)",
    "zne": "folds gates to scale the noise, extrapolates to none (zero-noise extrapolation)",
    "lre": "the same, layer by layer (layerwise Richardson extrapolation)",
    "pec": "samples circuits that cancel the noise on average (probabilistic error cancellation)",
    "cdr": "learns the effect of noise from near-Clifford circuits (Clifford data regression)",
}
"""In the order in which they stand in a stack, innermost (nearest to the device) first."""

ELSEWHERE: dict[str, str] = {
    "rem": "readout",
    "trex": "readout",
    "m3": "readout",
    "spam": "readout",
    "measure": "readout",
    "verification": "symmetry",
    "sv": "symmetry",
    "dd": "ddd",
    "decoupling": "ddd",
    "pt": "twirl",
    "pauli-twirling": "twirl",
    "extrapolation": "zne",
    "richardson": "zne",
    "folding": "zne",
    "regression": "cdr",
    "clifford": "cdr",
    "cancellation": "pec",
}
"""What others call them: for the suggestion in an error."""

ESTIMATORS = ("zne", "lre", "pec", "cdr")
"""Each of them removes the gates' errors: two would remove them twice."""

OTHER_STATES = ("pec", "cdr")
"""Techniques that run circuits whose states do not have the ansatz's symmetries, on purpose."""


def parse(text: str) -> tuple[str, ...]:
    """Techniques of a stack such as "readout+zne"; none for "none".

    A stack is read from the device outwards: what is named first is nearest to the measured values, and what is named
    last makes the circuits that the others are applied to.

    Raises:
        UsageError: An unknown name, one twice, two that remove the same errors or do not go together, or an order that
            means something else; says what works.
    """
    names = tuple(part.strip().lower() for part in str(text).split("+"))
    pieces = re.split(r"[\s,;/&]+", str(text).strip().lower())
    if len(pieces) > 1 and all(piece in TECHNIQUES for piece in pieces):
        raise UsageError(
            f"techniques are joined with +, and {text!r} has none.",
            f"Take {'+'.join(sorted(pieces, key=list(TECHNIQUES).index))}.",
        )
    if names in (("none",), ("",)):
        return ()
    for name in names:
        if name in TECHNIQUES:
            continue
        if name in ("none", "auto"):
            raise UsageError(f"{name!r} is no part of a stack, in {text!r}.", f"Write it alone: --mitigation {name}.")
        close = difflib.get_close_matches(name, [*TECHNIQUES, *ELSEWHERE, "none", "auto"], n=1)
        hint = f"Did you mean {ELSEWHERE.get(close[0], close[0])}? " if close else ""
        raise UsageError(
            f"unknown mitigation technique {name!r}.",
            f"{hint}Known: none, auto, {', '.join(TECHNIQUES)}, and stacks as readout+zne.",
        )
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} stands twice in {text!r}.", f"Take {'+'.join(dict.fromkeys(names))}.")
    both = [name for name in names if name in ESTIMATORS]
    if len(both) > 1:
        others = [name for name in names if name not in ESTIMATORS]
        each = " or ".join("+".join([*others, name]) for name in both)
        raise UsageError(f"{' and '.join(both)} both remove the errors of gates, in {text!r}.", f"Take {each}.")
    works = tuple(name for name in TECHNIQUES if name in names)
    if names != works:
        raise UsageError(
            f"{text!r} is in another order than it can be applied in: a stack is read from the device outwards.",
            f"Take {'+'.join(works)}.",
        )
    check_symmetry(names)
    return names


def check_symmetry(names: tuple[str, ...]) -> None:
    """Check that symmetries are verified of circuits that have them.

    Args:
        names: Of the stack's techniques.

    Raises:
        UsageError: symmetry stands with a technique that runs other states.
    """
    for other in OTHER_STATES:
        if "symmetry" in names and other in names:
            rest = "+".join(name for name in names if name != "symmetry")
            raise UsageError(
                f"symmetry and {other} do not go together: {other} runs circuits whose states are not those of the "
                "ansatz, and their symmetries are others.",
                f"Take {rest}, or symmetry with zne or lre, which keep the state.",
            )
