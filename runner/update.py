"""What a peer publishes after a round: parameters in fixed point, and the models they were made from.

The bytes are canonical (one model, one CID) and the aggregation is integer arithmetic (runner/aggregate.py), so that
any machine that has the published models computes the same aggregate, bit for bit; `start` is that aggregate's digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from circuits.errors import QrunError
from circuits.hostile import load_json

FORMAT = "qrun-update/2"
ASYNC_FORMAT = "qrun-update/3"
"""Of a model that was trained without regard to rounds: it names the state that it started from."""
SCALE_BITS = 24
"""A parameter p is stored as round(p * 2**24): steps of 6e-8, float32's own at 1."""
LIMIT = 1 << 40
"""Largest magnitude in fixed point (65,536): beyond it a model is broken or hostile."""
MAX_WEIGHT = 10_000
"""Largest weight of an input: full reputation."""
MAX_BYTES = 16 << 20
MAX_INPUTS = 256

IntArray = npt.NDArray[np.int64]
Blocks = Mapping[str, IntArray]
"""Named arrays in fixed point."""
_CID = re.compile(r"[a-zA-Z0-9]{10,120}")
_NAME = re.compile(r"[a-z0-9_.]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class UpdateError(QrunError):
    """A published model that fails a check; it counts as absent."""


@dataclass(frozen=True)
class Input:
    """A model that this one started from: its CID, integer weight, and (asynchronous) age in settled rounds."""

    cid: str
    weight: int
    age: int = 0


@dataclass(frozen=True)
class Update:
    """One node's model of one round.

    Attributes:
        config: SHA-256 of the run's config, hex.
        feature_map: CID of the feature map that its inputs are features of.
        round: 0 for the common start, then 1 ...; of an asynchronous model, which of its node's own it is, from 1.
        node: Index of the publisher; -1 for the common start.
        blocks: name -> int64 array in fixed point (SCALE_BITS).
        inputs: Models and weights that the round started from.
        start: `blocks_digest` of what training started from, which is the aggregate of the inputs; of a model that
            nobody trained (the common start, the final aggregate), that of its own blocks.
        view: Of an asynchronous model: the last settled round when its node looked for inputs, 0 for none.
    """

    config: str
    feature_map: str
    round: int
    node: int
    blocks: Blocks
    inputs: tuple[Input, ...]
    start: str
    view: int | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no white space, integers only. The same update gives the same bytes."""
        inputs = [{"cid": i.cid, "weight": i.weight} for i in self.inputs]
        body: dict[str, Any] = {
            "format": FORMAT,
            "scale_bits": SCALE_BITS,
            "config": self.config,
            "feature_map": self.feature_map,
            "node": self.node,
            "blocks": _plain(self.blocks),
            "inputs": inputs,
            "start": self.start,
        }
        if self.view is None:
            return _canonical({**body, "round": self.round})
        aged = [{**plain, "age": i.age} for plain, i in zip(inputs, self.inputs, strict=True)]
        return _canonical({**body, "format": ASYNC_FORMAT, "sequence": self.round, "view": self.view, "inputs": aged})


def _plain(blocks: Blocks) -> dict[str, Any]:
    return {name: {"shape": list(block.shape), "values": block.reshape(-1).tolist()} for name, block in blocks.items()}


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def blocks_digest(blocks: Blocks) -> str:
    """SHA-256, hex, of blocks as they stand in a model file: names the parameters alone, whoever has them."""
    return hashlib.sha256(_canonical(_plain(blocks))).hexdigest()


def quantise(parameters: Mapping[str, npt.NDArray[np.floating]]) -> Blocks:
    """Float parameters to fixed point, rounded half to even.

    Raises:
        UpdateError: a parameter is not finite or beyond 65,536: training diverged.
    """
    out: dict[str, IntArray] = {}
    for name in sorted(parameters):
        scaled = np.rint(np.asarray(parameters[name], dtype=np.float64) * float(1 << SCALE_BITS))
        if not np.isfinite(scaled).all() or (np.abs(scaled) > LIMIT).any():
            raise UpdateError(
                f"training diverged: block {name} has parameters that are not finite or beyond 65,536.",
                "Lower model.generator_rate or model.discriminator_rate.",
            )
        out[name] = scaled.astype(np.int64)
    return out


def dequantise(blocks: Blocks) -> dict[str, npt.NDArray[np.float64]]:
    """Fixed point back to float64 (exact: 40 bits fit in the mantissa)."""
    return {name: block.astype(np.float64) / float(1 << SCALE_BITS) for name, block in blocks.items()}


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise UpdateError(f"model file rejected: {what}.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def norm_allowed(values: Iterable[int], bound: float) -> bool:
    """Whether the L2 norm of a block's parameters, given in fixed point, is at most `bound`; in exact integers."""
    return sum(v * v for v in values) <= int(bound * (1 << SCALE_BITS)) ** 2


def parse_update(
    data: bytes, shapes: Mapping[str, tuple[int, ...]] | None = None, *, norm_bound: float | None = None
) -> Update:
    """Read a published model, hostile until checked: size, schema, shapes, range, norms, canonical form.

    Args:
        data: The file's bytes (their CID is the store's business).
        shapes: The shapes that the run's model has; None accepts any.
        norm_bound: The largest L2 norm of a block's parameters (grades.norm_bound); None accepts any.

    Raises:
        UpdateError: naming the first check that failed.
    """
    try:
        body = load_json(data, max_bytes=MAX_BYTES, what="model file")
    except QrunError as error:
        raise UpdateError(error.message) from None
    keys = {"format", "scale_bits", "config", "feature_map", "node", "blocks", "inputs", "start"}
    aged = isinstance(body, dict) and "view" in body
    number = "sequence" if aged else "round"
    keys |= {"sequence", "view"} if aged else {"round"}
    _need(isinstance(body, dict) and set(body) == keys, "its keys are not those of an update")
    wanted = ASYNC_FORMAT if aged else FORMAT
    _need(body["format"] == wanted and body["scale_bits"] == SCALE_BITS, f"not of format {wanted}")
    _need(isinstance(body["config"], str) and bool(_DIGEST.fullmatch(body["config"])), "config digest")
    _need(isinstance(body["start"], str) and bool(_DIGEST.fullmatch(body["start"])), "digest of its start")
    _need(isinstance(body["feature_map"], str) and bool(_CID.fullmatch(body["feature_map"])), "feature map CID")
    _need(_is_int(body[number]) and 0 <= body[number] <= 1_000_000, f"{number} number")
    _need(not aged or (_is_int(body["view"]) and 0 <= body["view"] <= 1_000_000), "its view")
    _need(_is_int(body["node"]) and -1 <= body["node"] <= 100_000, "node index")
    _need(isinstance(body["inputs"], list) and len(body["inputs"]) <= MAX_INPUTS, "list of inputs")
    inputs = []
    for entry in body["inputs"]:
        _need(
            isinstance(entry, dict) and set(entry) == {"cid", "weight", *(["age"] if aged else [])}, "an input's keys"
        )
        _need(isinstance(entry["cid"], str) and bool(_CID.fullmatch(entry["cid"])), "an input's CID")
        _need(_is_int(entry["weight"]) and 0 < entry["weight"] <= MAX_WEIGHT, "an input's weight")
        _need(not aged or (_is_int(entry["age"]) and 0 <= entry["age"] <= 1_000_000), "an input's age")
        inputs.append(Input(entry["cid"], entry["weight"], entry["age"] if aged else 0))
    _need(isinstance(body["blocks"], dict) and 0 < len(body["blocks"]) <= 256, "its blocks")
    blocks: dict[str, IntArray] = {}
    for name, block in body["blocks"].items():
        _need(bool(_NAME.fullmatch(name)), "a block's name")
        _need(isinstance(block, dict) and set(block) == {"shape", "values"}, f"block {name}: keys")
        shape, values = block["shape"], block["values"]
        _need(
            isinstance(shape, list) and len(shape) <= 4 and all(_is_int(s) and 0 < s <= 1 << 22 for s in shape),
            f"block {name}: shape",
        )
        _need(isinstance(values, list) and all(map(_is_int, values)), f"block {name}: values are not integers")
        _need(len(values) == int(np.prod(shape, dtype=object)), f"block {name}: values do not fill its shape")
        _need(all(-LIMIT <= v <= LIMIT for v in values), f"block {name}: a value beyond 65,536")
        _need(norm_bound is None or norm_allowed(values, norm_bound), f"block {name}: its norm is beyond {norm_bound}")
        blocks[name] = np.array(values, dtype=np.int64).reshape(shape)
    if shapes is not None:
        got = {name: block.shape for name, block in blocks.items()}
        _need(got == dict(shapes), "its shapes are not those of the run's model")
    update = Update(
        body["config"],
        body["feature_map"],
        body[number],
        body["node"],
        blocks,
        tuple(inputs),
        body["start"],
        body["view"] if aged else None,
    )
    _need(update.to_bytes() == data, "not in canonical form")
    return update
