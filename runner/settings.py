"""What a user may set about the federation: how models are joined, graded and settled. Every threshold stands here."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from backends.mitigation.stack import parse
from backends.runtime.types import RuntimeOptions
from contracts.reputation import Rules
from experiments.settings import NonNegative, Positive, Settings

if TYPE_CHECKING:
    from backends.mitigation.types import MitigationOptions

Grade = Annotated[int, Field(ge=0, le=100)]
Seconds = Annotated[int, Field(ge=1, le=2**31)]
ASYNC_DEFAULTS: dict[str, Any] = {
    "window_seconds": 60,
    "quorum": 3,
    "age_discount": 0.5,
    "commit_seconds": 120,
    "reveal_seconds": 120,
}
"""What an asynchronous run has where nobody says otherwise. The first three are of such a run only; time for grades is
short there, for nobody trains meanwhile who would have to be waited for."""
OF_ASYNC = ("window_seconds", "quorum", "age_discount")
SUM_SECONDS = 3600
AGGREGATIONS = ("reputation", "mean", "median", "trimmed-mean", "krum")


class GradeSettings(Settings):
    """How a peer grades another, off the chain (runner/grades.py has the formulas)."""

    memory: float = Field(0.7, ge=0, lt=1, description="What a movement keeps of the rounds before.")
    records: int = Field(128, ge=1, le=65_536, description="Benign validation records that models are tried on.")
    discriminator_range: tuple[Positive, Positive] = Field(
        (0.35, 3.0), description="Movement of the discriminator over the median; a hard fault outside."
    )
    generator_range: tuple[Positive, Positive] = Field((0.15, 6.0), description="The same of the generator.")
    stale: NonNegative = Field(0.35, description="A change since the last model below this share of the median: stale.")
    copy_distance: NonNegative = Field(0.1, description="Closer to another's last model than this share: a copy.")
    norm_bound: Positive = Field(
        1000.0, le=65_536, description="L2 norm of a block's parameters beyond which a model counts as absent."
    )
    floor: Positive = Field(0.2, le=1, description="Usual cosine of movements below which grades fall with it.")
    generator_floor: Positive = Field(0.3, le=1, description="The same of the generator.")
    free_ratio: Positive = Field(1.5, description="A discriminator may move so many times the median at no cost.")
    alignment: tuple[NonNegative, Positive] = Field(
        (0.1, 0.5), description="Cosine of movements over the usual one: where grades begin, and where they are full."
    )
    sudden: NonNegative = Field(
        0.3, description="A round's own relative cosine counts where it is so much below that of all rounds."
    )
    loss_free: NonNegative = Field(
        1.0, description="Loss on benign records above the peers' median that costs nothing."
    )
    loss_price: NonNegative = Field(0.25, description="What each unit above that takes off the relative cosine ...")
    loss_most: NonNegative = Field(0.7, description="... and what all of it takes off at most.")

    @model_validator(mode="after")
    def _in_order(self) -> GradeSettings:
        for name in ("discriminator_range", "generator_range"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first of the two is the smaller")
        if self.alignment[0] >= self.alignment[1]:
            raise ValueError("alignment: the first of the two is the smaller")
        return self


class FederationSettings(Settings):
    """How peers' models are joined, signed, and how the contract settles (contracts/reputation.py has the rule).

    `schedule` is None where it is "sync"; in an asynchronous run `window_seconds`, `quorum` and `age_discount` are
    there.
    """

    left_out: ClassVar[tuple[str, ...]] = ("schedule", *OF_ASYNC, "sum_seconds")

    aggregation: Literal["reputation", "mean", "median", "trimmed-mean", "krum"] = Field(
        "reputation", description="How a node joins the peers' models; all but the first ignore the reputation."
    )
    hostile_share: float = Field(
        0.3, ge=0, lt=0.5, description="Share of hostile nodes that trimmed-mean and krum are set for."
    )
    signatures: Literal["secp256k1", "ml-dsa-65"] = Field("secp256k1", description="How nodes sign their models.")
    map_variance: NonNegative = Field(
        0.33, description="A node votes for a feature map that gives its records this variance; 0: any."
    )
    map_shift: NonNegative = Field(
        0.5, description="... and moves their mean by at most this share of it, squared; 1e9: any."
    )
    submit_seconds: Seconds = Field(30 * 86_400, description="From a round's opening to the last submission.")
    commit_seconds: Seconds = Field(7 * 86_400, description="From then to the last commitment to grades.")
    reveal_seconds: Seconds = Field(7 * 86_400, description="From then to the last revealed grades.")
    setup_seconds: Seconds = Field(30 * 86_400, description="For registration and map; then the task may be abandoned.")
    warn: Grade = Field(50, description="Percent of the median reputation below which a node is flagged.")
    low_early: Grade = Field(15, description="Percent below which it is low, in the first settlements.")
    low_late: Grade = Field(15, description="The same after them.")
    early: int = Field(3, ge=0, le=255, description="How many settlements are the first ones.")
    strong_early: Grade = Field(35, description="Median score that a settlement needs to act, in the first ones.")
    strong_late: Grade = Field(50, description="The same after them.")
    asymmetry: Grade = Field(60, description="Typical difference of grades given and received that is too much.")
    keep: Grade = Field(50, description="Percent of a reputation that a settlement keeps.")
    low_in_a_row: int = Field(4, ge=1, le=255, description="Strong settlements low in a row that exclude.")
    hard_in_a_row: int = Field(3, ge=1, le=255, description="Scores of 0 in a row that exclude.")
    schedule: Literal["sync", "async"] | None = Field(
        None, description="sync: all train a round and wait for all; async: rounds are windows, and nobody waits."
    )
    window_seconds: Seconds | None = Field(None, description="How long an asynchronous round takes models.")
    quorum: int | None = Field(None, ge=1, le=255, description="How many have to grade for its scores to act.")
    age_discount: float | None = Field(
        None, description="0, 0.5 or 1: power of a model's age, in settled rounds, that its weight is divided by."
    )
    sum_seconds: Seconds | None = Field(
        None, description="How long a sum of peers in several processes waits for absent ones (an hour)."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_schedule(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        out = dict(values)
        if out.get("schedule") == "async":
            for name, default in ASYNC_DEFAULTS.items():
                if out.get(name) is None:
                    out[name] = default
        elif out.get("schedule") in (None, "sync"):
            out.pop("schedule", None)  # one run, one digest, however it is said
            for name in OF_ASYNC:
                if out.get(name) is not None:
                    raise ValueError(f"{name} is of schedule = 'async', and this one is 'sync': it would do nothing")
        return out

    @field_validator("age_discount")
    @classmethod
    def _known_discount(cls, value: float | None) -> float | None:
        if value not in (None, 0.0, 0.5, 1.0):
            raise ValueError("weights are computed in integers for the powers 0, 0.5 and 1")
        return value

    @model_validator(mode="after")
    def _window_in_time(self) -> FederationSettings:
        if self.window_seconds is not None and self.window_seconds > self.submit_seconds:
            raise ValueError(f"window_seconds: a window is no longer than submit_seconds, {self.submit_seconds}")
        return self

    @property
    def asynchronous(self) -> bool:
        """Whether rounds are windows."""
        return self.schedule == "async"

    @property
    def sums_wait(self) -> int:
        """How long an announced sum waits for absent nodes, in seconds."""
        return SUM_SECONDS if self.sum_seconds is None else self.sum_seconds

    def rules(self) -> Rules:
        """As the contract takes them."""
        names = Rules.__dataclass_fields__
        return Rules(**{name: getattr(self, name) or 0 for name in names})


class RuntimeSettings(Settings):
    """What defines the results of IBM's Runtime, local or real: how a circuit is run, and on which device besides.

    The fields from `run_on` on are of a run that is trained elsewhere (on the twin), and whose trained models then go
    to a device.
    """

    dynamical_decoupling: Literal["off", "XX", "XpXm", "XY4"] = Field(
        "off", description="Sequence of pulses on qubits that wait."
    )
    twirling: Literal["off", "gates", "measure", "all"] = Field(
        "off", description="Random Paulis around two-qubit gates, before readout, or both; levels 1 and 2 add theirs."
    )
    resilience_level: Literal[0, 1, 2] | None = Field(
        None, description="None: counts from the Sampler; 0, 1, 2: the Estimator's error mitigation."
    )
    run_on: str | None = Field(None, description="Device that the trained models go to.")
    run_on_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Of its calibration, if not packed.")
    shots: int = Field(1024, ge=1, le=10_000_000, description="A circuit, on run_on.")
    samples: int = Field(256, ge=16, le=65_536, description="Generated samples on run_on.")
    fine_tune: int = Field(
        0, ge=0, le=100_000, description="Generator steps by SPSA on run_on, after the last round's training."
    )

    @model_validator(mode="after")
    def _of_a_device(self) -> RuntimeSettings:
        if self.run_on is None:
            for name in ("run_on_sha256", "shots", "samples", "fine_tune"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of the device that trained models go to: give --run-on NAME with it")
        return self

    def options(self, shots: int) -> RuntimeOptions:
        """As the runtime engine takes them."""
        return RuntimeOptions(
            shots=shots,
            dynamical_decoupling=self.dynamical_decoupling,
            twirling=self.twirling,
            resilience_level=self.resilience_level,
        )


TECHNIQUE_OPTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "scale_factors": (("zne",), "auto"),
    "folding": (("zne", "lre"), "local"),
    "extrapolation": (("zne",), "auto"),
    "ddd_rule": (("ddd",), "xx"),
    "training_circuits": (("cdr",), 10),
    "fraction_non_clifford": (("cdr",), 0.3),
    "pec_samples": (("pec",), 100),
    "lre_degree": (("lre",), 2),
    "lre_chunks": (("lre",), 2),
    "twirl_circuits": (("twirl",), 8),
    "readout": (("readout",), "calibration"),
}
"""Option of [mitigation] -> the techniques that it is of, and its default, that of `MitigationOptions` (a test holds
the two together: that module loads qiskit, and a config is checked before)."""

Circuits = Annotated[int, Field(ge=1, le=100_000)]


class MitigationSettings(Settings):
    """Error mitigation of a run: which techniques, of what, and how (backends/mitigation).

    An option of a technique is there where the stack has the technique, by default with the technique's own value; one
    of another technique is refused, for it would do nothing.
    """

    left_out: ClassVar[tuple[str, ...]] = tuple(TECHNIQUE_OPTIONS)

    stack: str = Field(description="Techniques from the device outwards: readout+zne.")
    apply: Literal["both", "training", "evaluation"] = Field(
        "both", description="Mitigate the generator's steps, the samples that scores rest on, or both."
    )
    budget: float = Field(100, ge=1, le=1e9, allow_inf_nan=False, description="Most circuits for each unmitigated one.")
    scale_factors: tuple[float, ...] | Literal["auto"] | None = Field(
        None, description="Noise scales, from 1 up; one that stands twice is run twice."
    )
    folding: Literal["local", "global", "random"] | None = Field(None, description="How noise is scaled.")
    extrapolation: Literal["auto", "richardson", "linear", "quadratic", "exponential"] | None = Field(
        None, description="How values are led back to no noise."
    )
    ddd_rule: Literal["xx", "yy", "xyxy"] | None = Field(None, description="Sequence of pulses.")
    training_circuits: Circuits | None = Field(None, description="Near-Clifford circuits a call.")
    fraction_non_clifford: float | None = Field(
        None, ge=0, lt=1, description="Share of rotations that stay as they are in them."
    )
    pec_samples: Circuits | None = Field(None, description="Sampled circuits.")
    lre_degree: int | None = Field(None, ge=1, le=20, description="Degree of the polynomial.")
    lre_chunks: int | None = Field(None, ge=1, le=10_000, description="Parts that are folded by themselves.")
    twirl_circuits: Circuits | None = Field(None, description="Random instances that are averaged.")
    readout: Literal["calibration", "circuits"] | None = Field(
        None, description="Where confusion matrices come from: the calibration, or two circuits of each call."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_the_stack(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        if values.get("stack") is None:
            raise ValueError("mitigation without a stack: name one with it, for example --mitigation readout+zne")
        if str(values["stack"]).strip().lower() == "auto":
            raise ValueError("mitigation.stack: auto is chosen before there is a config; it names the techniques")
        names = parse(values["stack"])
        if not names:
            raise ValueError("mitigation.stack: none is written by leaving the table out")
        out = dict(values)
        out["stack"] = "+".join(names)
        for option, (techniques, default) in TECHNIQUE_OPTIONS.items():
            used = any(name in names for name in techniques)
            if used and out.get(option) is None:
                out[option] = default
            if not used and out.get(option) is not None:
                raise ValueError(
                    f"mitigation.{option} is of {' and '.join(techniques)}, and the stack is {out['stack']}: it would "
                    "do nothing"
                )
        return out

    @field_validator("scale_factors", mode="before")  # a union's own words would name its branches
    @classmethod
    def _some_scales(cls, value: Any) -> Any:
        if value is None or value == "auto":
            return value
        numbers = isinstance(value, list | tuple) and len(value) <= 64
        if not numbers or any(isinstance(each, bool) or not isinstance(each, int | float) for each in value):
            raise ValueError('scale factors are up to 64 numbers; take [1, 3, 5], or "auto"')
        if len(set(value)) < 2:
            raise ValueError(
                "there must be two scale factors or more, not all the same, to extrapolate from; take [1, 3, 5]"
            )
        if value[0] != 1 or any(not a <= b < 1000 for a, b in pairwise(value)):
            raise ValueError("scale factors go up from 1; take [1, 3, 5]")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The techniques, innermost first."""
        return tuple(self.stack.split("+"))

    def options(self, seed: int) -> MitigationOptions:
        """As the techniques take them.

        Args:
            seed: Of what they draw: `derive(config.seed, "mitigation")`.
        """
        from backends.mitigation.types import MitigationOptions

        said = {name: getattr(self, name) for name in TECHNIQUE_OPTIONS if getattr(self, name) is not None}
        return MitigationOptions(stack=self.names, seed=seed, **said)
