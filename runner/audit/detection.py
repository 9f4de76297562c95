"""The final model's figures in detail, and the detector that the run keeps for `qrun detect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from circuits.errors import QrunError
from contracts.errors import ContentError, LedgerError
from contracts.store import ContentStore
from experiments.detection import PARTS, THRESHOLDS
from experiments.metrics import Metrics
from runner.audit.checks import Findings
from runner.detection import DIGITS
from runner.detector import MAX_BYTES, Detector

METRICS = tuple(Metrics.__dataclass_fields__)
TOLERANCE = 2e-3
"""Of a rate: as runner/audit/kept.py has it."""
SAMPLES_TOLERANCE = 1e-3
"""Of a generated sample: what the same circuit differs by on another machine."""


def check_detection(
    findings: Findings, result: Mapping[str, Any], store: ContentStore, names: Mapping[str, str]
) -> None:
    """What the result says in detail, as far as it shows without the data.

    Args:
        findings: Where statements are noted.
        result: Of the run; one of an earlier format has no detail, and nothing is noted.
        store: The run's.
        names: Config's digest, CID of the final model and of the map, as chain and store have them, where they do.
    """
    if "detection" not in result:
        return
    told = _mapping(result["detection"])
    parts, metrics = _mapping(told.get("parts")), _mapping(result.get("metrics"))
    wrong = [part for part in PARTS if _label_free(parts.get(part)) != metrics.get(part)]
    findings.test(
        not wrong, "result/detection/metrics", "the figures in detail have the metrics at the label-free threshold",
        f"those of {', '.join(wrong)} are others",
    )  # fmt: skip
    cid = str(told.get("detector_cid"))
    claim = "the detector is one of the final model, on the agreed feature map"
    try:
        found = Detector.from_bytes(store.get(cid, max_bytes=MAX_BYTES))
    except (ContentError, LedgerError, QrunError) as error:
        findings.false("result/detection/detector", claim, str(error), cid)
        return
    apart = [name for name, value in names.items() if getattr(found, name) != value]
    findings.test(not apart, "result/detection/detector", claim, f"it names another {', '.join(apart)}", cid)
    stated = {
        (name, part): _mapping(_mapping(parts.get(part)).get(name)).get("threshold")
        for name in THRESHOLDS
        for part in PARTS
        if parts.get(part) is not None
    }
    other = sorted({name for (name, _), value in stated.items() if value != round(found.thresholds[name], DIGITS)})
    findings.test(
        not other, "result/detection/thresholds", "the detector's thresholds are those of the result",
        f"{' and '.join(other)}: it has another", cid,
    )  # fmt: skip


def check_again(findings: Findings, result: Mapping[str, Any], store: ContentStore, made: tuple[Any, Detector]) -> None:
    """What the result says in detail against what the data give.

    Args:
        findings: Where statements are noted.
        result: Of the run.
        store: The run's.
        made: Parts and detector, as computed again.
    """
    if "detection" not in result:
        return
    told, (parts, detector) = _mapping(result["detection"]), made
    said = dict(_flat(_mapping(told.get("parts"))))
    found = dict(_flat(parts))
    far = [key for key in found if not _close(said.get(key), found[key])]
    far += sorted(said.keys() - found.keys())
    findings.test(
        not far, "metrics/final/detail", "the figures by threshold and family are those of the final model on the data",
        "; ".join(f"{key}: {said.get(key)} is told, {found.get(key)} is computed" for key in far[:5]),
    )  # fmt: skip
    claim, cid = (
        "the detector's samples and calibration are those of the final model on the data",
        str(told.get("detector_cid")),
    )
    try:
        kept = Detector.from_bytes(store.get(cid, max_bytes=MAX_BYTES))
    except (ContentError, LedgerError, QrunError) as error:
        findings.false("metrics/final/detector", claim, str(error), cid)
        return
    wrong = []
    if kept.to_bytes() != detector.to_bytes():
        same = kept.samples.shape == detector.samples.shape
        if not same or np.abs(kept.samples - detector.samples).max() > SAMPLES_TOLERANCE:
            wrong.append("samples")
        for name in ("parts", "score", "attacks"):
            one, other = getattr(kept, name), getattr(detector, name)
            # A record whose score is rounded otherwise may fall into the next bin.
            cumulated = np.abs(np.cumsum(one, -1) - np.cumsum(other, -1)).max() if one.shape == other.shape else np.inf
            if cumulated > TOLERANCE * max(1, int(other.sum())):
                wrong.append(name)
    findings.test(not wrong, "metrics/final/detector", claim, f"its {' and '.join(wrong)} are others", cid)


def _label_free(part: Any) -> Any:
    if part is None:
        return None
    found = _mapping(_mapping(part).get("label_free"))
    return {name: found.get(name) for name in METRICS}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path -> what is no dictionary."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}/{key}")
    else:
        yield path[1:], value


def _close(one: Any, other: Any) -> bool:
    numbers = [v for v in (one, other) if isinstance(v, int | float) and not isinstance(v, bool)]
    return abs(numbers[0] - numbers[1]) <= TOLERANCE if len(numbers) == 2 else one is other is None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
