"""A task's config, read back from a store: hostile until it is what the task was opened with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from circuits.errors import QrunError
from circuits.hostile import load_json
from contracts.cid import RAW, Cid
from contracts.records import TaskSpec
from runner.config import MAX_CONFIG_BYTES, RunConfig, build_config, canonical


def config_cid(digest: bytes) -> str:
    """The CID of the config with this digest: it is a file of one block."""
    return str(Cid(RAW, digest))


def saved_values(data: bytes) -> dict[str, Any]:
    """The values in a config's bytes.

    Raises:
        QrunError: they are no table of settings in canonical form.
    """
    saved = load_json(data, max_bytes=MAX_CONFIG_BYTES, what="the config")
    sound = False
    if isinstance(saved, dict):
        try:
            sound = canonical(saved) == data
        except (TypeError, ValueError):
            sound = False
    if not sound:
        raise QrunError("its bytes are no table of settings in canonical form.")
    return dict(saved)


def config_of(saved: dict[str, Any]) -> RunConfig:
    """The config that has these values, whole.

    Raises:
        QrunError: a value is wrong, or this version of qrun writes the same settings otherwise.
    """
    config = build_config(saved, origin="the config")
    if config.canonical() != canonical(saved):
        raise QrunError("this version of qrun writes the same settings otherwise.")
    return config


@dataclass(frozen=True)
class Term:
    """Something that the task says and the config too.

    Attributes:
        name: Of what.
        said: By the task.
        wanted: By the config.
        agree: Whether the two fit.
    """

    name: str
    said: Any
    wanted: Any
    agree: bool


def terms_of(spec: TaskSpec, config: RunConfig) -> Iterator[Term]:
    """What task and config both say: rounds, nodes, experiment, rules.

    A task that is open to all begins with `min_nodes` and has a share of the data for each of the config's `nodes`.
    """
    yield Term("rounds", spec.max_rounds, config.rounds, spec.max_rounds == config.rounds)
    if spec.nodes:
        yield Term("nodes", len(spec.nodes), config.nodes, len(spec.nodes) == config.nodes)
    else:
        yield Term("nodes", spec.min_nodes, config.nodes, spec.min_nodes <= config.nodes)
    yield Term("experiment", spec.experiment, config.experiment, spec.experiment == config.experiment)
    rules = config.federation.rules()
    yield Term("rules", spec.rules, rules, spec.rules == rules)
