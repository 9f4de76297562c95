"""What an experiment is: which data, which circuit, which model. Others add theirs by the entry point qrun.experiments.

An experiment is a class without arguments that has the attributes and methods of `Experiment`; a package offers it as

    [project.entry-points."qrun.experiments"]
    my-experiment = "my_package.my_module:MyExperiment"
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from circuits.errors import QrunError, UsageError
from experiments.datasets.types import BoolArray, Dataset, Records
from experiments.settings import DataSettings, ModelSettings

if TYPE_CHECKING:
    from circuits.types import Ansatz

Seeds = Callable[..., int]
"""(purpose, *parts) -> seed: how an experiment gets its share of the run's randomness."""

GROUP = "qrun.experiments"


@dataclass(frozen=True)
class NodeShare:
    """The records that one node holds; they never leave it.

    `train` and `validation` are benign: the first is trained on, the second calibrates scores and threshold.
    `attacks` are labelled attack records of the validation part; they measure rounds, nothing learns from them.
    """

    train: Records
    validation: Records
    attacks: Records


@dataclass(frozen=True)
class Study:
    """A loaded experiment: the nodes' shares, and what the finished model is measured on.

    Attributes:
        dataset: Where everything came from.
        shares: One a node.
        holdout: Part of the training file that no node has seen.
        test: The test file, None if it is not to be scored.
        seen: (len(test),) True where the same vector also stands in the training file.
        training_attacks: Attack records of the training part: what supervised baselines see, and nobody else.
    """

    dataset: Dataset
    shares: tuple[NodeShare, ...]
    holdout: Records
    test: Records | None
    seen: BoolArray | None
    training_attacks: Records | None = None


class Experiment(Protocol):
    """What the runner needs of an experiment.

    It may also have `presets()`: names -> values of RunConfig over its defaults, for `--preset NAME`.
    """

    name: str
    summary: str

    def defaults(self) -> Mapping[str, Any]:
        """Values of RunConfig that differ from its own defaults, nested as in the config file."""
        ...

    def ansatz(self, model: ModelSettings) -> Ansatz:
        """The generator's circuit."""
        ...

    def load(
        self, data: DataSettings, *, nodes: int, seeds: Seeds, folder: Path | None, notify: Callable[[str], None]
    ) -> Study:
        """Find the data, split it, and deal it to the nodes.

        Args:
            data: What the user asked for.
            nodes: How many share it.
            seeds: The run's randomness.
            folder: Where the user says the files are, None to look for them.
            notify: Told what the user should know, e.g. that a stand-in is used.
        """
        ...


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """The experiments installed here."""
    return sorted(_entries())


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        UsageError: unknown name, with the nearest one.
        QrunError: its package cannot be loaded.
    """
    entries = _entries()
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "`qrun experiment list` shows them."
        raise UsageError(f"unknown experiment {name!r}.", hint)
    try:
        experiment: Experiment = entries[name].load()()
    except Exception as error:
        raise QrunError(
            f"experiment {name!r} ({entries[name].value}) cannot be loaded: {type(error).__name__}: {error}.",
            "Reinstall the package that offers it.",
        ) from error
    missing = [m for m in ("name", "summary", "defaults", "ansatz", "load") if not hasattr(experiment, m)]
    if missing:
        raise QrunError(
            f"experiment {name!r} ({entries[name].value}) lacks {', '.join(missing)}.",
            "See experiments.base.Experiment for what it has to have.",
        )
    return experiment


def preset_of(experiment: Experiment, name: str) -> Mapping[str, Any]:
    """The values that a preset of an experiment stands for.

    Raises:
        UsageError: It has none of that name.
    """
    known: Mapping[str, Mapping[str, Any]] = getattr(experiment, "presets", dict)()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        offered = f"Known: {', '.join(known)}." if known else f"{experiment.name} has no presets."
        raise UsageError(f"unknown preset {name!r}.", f"Did you mean {close[0]}? {offered}" if close else offered)
    return known[name]
