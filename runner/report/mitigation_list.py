"""What `qrun mitigation list` says: techniques in the order of a stack, what each costs, and its options."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from backends.mitigation.stack import ESTIMATORS, TECHNIQUES
from runner.settings import TECHNIQUE_OPTIONS

_CIRCUITS: dict[str, str] = {
    "readout": '1, or two more a call with readout = "circuits"',
    "symmetry": "1",
    "ddd": "1",
    "twirl": "twirl_circuits (8)",
    "zne": "one a scale factor (3)",
    "lre": "grows with lre_chunks and lre_degree (6)",
    "pec": "pec_samples (100)",
    "cdr": "1 and training_circuits (10)",
}

LEGEND = (
    f"A stack names techniques from the device outwards, in this order: readout+zne, ddd+twirl+zne. Of "
    f"{', '.join(ESTIMATORS)} one at most: each removes the errors of gates. Circuits of techniques in a stack "
    "multiply."
)


@dataclass(frozen=True)
class Listed:
    """One technique: how many circuits it takes for each unmitigated one, and its options in [mitigation]."""

    name: str
    summary: str
    circuits: str
    options: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "options": list(self.options)}


def techniques() -> list[Listed]:
    """All of them, nearest to the device first."""
    return [
        Listed(
            name,
            summary,
            _CIRCUITS[name],
            tuple(option for option, (users, _) in TECHNIQUE_OPTIONS.items() if name in users),
        )
        for name, summary in TECHNIQUES.items()
    ]
