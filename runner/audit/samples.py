"""The published samples of device and twin, read as bytes of anybody's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from circuits.hostile import load_json
from contracts.errors import ContentError
from runner.audit.sources import Reader
from runner.device_report import SAMPLES
from runner.run_folder import MAX_BYTES

FloatArray = npt.NDArray[np.float64]


class _Wrong(Exception):
    """What is wrong with published samples."""


def read_samples(store: Reader, cid: str, *, model: str) -> dict[int, dict[str, FloatArray]] | str:
    """The published samples of a model by node, (count, features) each, or what is wrong with them."""
    try:
        return _samples(load_json(store.get(cid, max_bytes=MAX_BYTES), max_bytes=MAX_BYTES, what="samples"), model)
    except _Wrong as error:
        return str(error)
    except (ContentError, QrunError) as error:
        return error.message
    except (KeyError, TypeError, ValueError, OverflowError):
        return "they are damaged"


def _samples(body: Any, model: str) -> dict[int, dict[str, FloatArray]]:
    if body["format"] != SAMPLES:
        raise _Wrong(f"they are not of format {SAMPLES}")
    if body["model"] != model:
        raise _Wrong("they are of another model")
    out: dict[int, dict[str, FloatArray]] = {}
    for entry in body["nodes"]:
        arrays = {k: np.array(entry[k], dtype=np.float64) for k in ("device", "standard_errors", "twin")}
        shapes = {a.shape for a in arrays.values()}
        shape = next(iter(shapes))
        widths = {shape[1:], *(known["twin"].shape[1:] for known in out.values())}
        if len(shapes) != 1 or len(shape) != 2 or 0 in shape or len(widths) != 1:
            raise _Wrong("they are not as many of each")
        if not all(np.isfinite(a).all() for a in arrays.values()) or not isinstance(entry["id"], int):
            raise _Wrong("they are not numbers")
        if entry["id"] in out:
            raise _Wrong(f"node {entry['id']} is in them twice")
        out[entry["id"]] = arrays
    if not out:
        raise _Wrong("there are none")
    return out
