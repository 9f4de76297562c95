"""What a user may set about data and model, with the defaults: every hyperparameter of the method stands here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from experiments.datasets.split import parse_partition

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

ENTANGLEMENTS = ("full", "linear", "reverse_linear", "pairwise", "circular", "sca")
GRADIENTS = ("auto", "exact", "parameter-shift", "spsa")


class Settings(BaseModel):
    """Frozen, and an unknown key is an error: a misspelt option must not pass for a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    left_out: ClassVar[tuple[str, ...]] = ()
    """Options that came later: left out of every written form where they are None, so that the digests of runs that do
    without them stay what they were."""

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        for name in self.left_out:
            if values.get(name) is None:
                values.pop(name, None)
        return values


class DataSettings(Settings):
    """Which records, and who holds them."""

    full: bool = Field(False, description="Train on KDDTrain+ (125,973 records) instead of KDDTrain+_20Percent.")
    partition: str = Field("iid", description="How benign records are dealt to the nodes: iid or dirichlet:ALPHA.")
    test: bool = Field(True, description="Score the test file once, after the last round.")

    @field_validator("partition")
    @classmethod
    def _known_partition(cls, value: str) -> str:
        parse_partition(value)
        return value


class ModelSettings(Settings):
    """The QGAN: generator, discriminator, their training, and the anomaly score.

    The values were chosen on the validation part of the training file. The shape of the recipe (log, clip, residual,
    extra negatives) comes from a study that had looked at KDDTest+ while choosing; no value here was chosen by it.
    """

    left_out: ClassVar[tuple[str, ...]] = ("max_depth", "infidelity_weight")

    qubits: int = Field(6, ge=2, le=20, description="Qubits of the generator, and features of a record.")
    reps: int = Field(4, ge=1, le=50, description="Repetitions of EfficientSU2.")
    entanglement: Literal["full", "linear", "reverse_linear", "pairwise", "circular", "sca"] = "reverse_linear"
    gradient: Literal["auto", "exact", "parameter-shift", "spsa"] = Field(
        "auto", description="auto: exact where the engine can differentiate, else SPSA."
    )
    precision: Literal["float32", "float64"] = Field(
        "float32", description="Number type of the discriminator, with every engine, and of the twin."
    )
    epochs: int = Field(1, ge=1, le=1000, description="Epochs a round.")
    steps_per_epoch: int = Field(60, ge=1, le=100_000, description="Generator steps (batches) an epoch.")
    batch: int = Field(32, ge=2, le=4096, description="Records, and latents, a step.")
    latent_range: Positive = Field(3.141592653589793, description="z is uniform in [-range, range], radians.")
    initial_range: Positive = Field(0.6, description="First generator angles: uniform in [-range, range], radians.")
    hidden: tuple[Annotated[int, Field(ge=1, le=512)], ...] = Field(
        (64, 32), max_length=4, description="Widths of the discriminator's hidden layers."
    )
    discriminator_steps: int = Field(3, ge=1, le=100, description="Discriminator steps a generator step.")
    generator_rate: Positive = Field(0.02, le=100, description="Adam's step size for the angles.")
    discriminator_rate: Positive = Field(0.004, le=100, description="Adam's step size for the discriminator.")
    spsa_step: Positive = Field(0.15, description="Size of SPSA's perturbation, radians.")
    negatives_noise: NonNegative = Field(1.0, description="Loss weight of uniform noise as a negative.")
    negatives_perturbed: NonNegative = Field(1.0, description="Loss weight of perturbed generator samples.")
    perturbation: tuple[Positive, Positive] = Field((0.2, 1.0), description="Range of that perturbation's sd.")
    samples: int = Field(512, ge=16, le=65_536, description="Generated samples that the distance is taken to.")
    neighbours: int = Field(5, ge=1, le=100, description="Nearest of them that are averaged.")
    threshold_quantile: float = Field(0.95, gt=0.5, lt=1, description="Of benign validation scores; no label used.")
    max_depth: int | None = Field(None, ge=1, le=1_000_000, description="Depth that the compiled circuit may have.")
    infidelity_weight: Positive | None = Field(
        None, description="Loss weight of the expected infidelity of the compiled circuit (circuits/echo.py)."
    )

    @model_validator(mode="after")
    def _enough_samples(self) -> ModelSettings:
        if self.neighbours > self.samples:
            raise ValueError(f"neighbours = {self.neighbours}: there are only {self.samples} generated samples")
        if self.perturbation[0] > self.perturbation[1]:
            raise ValueError("perturbation: the first of the two is the smaller")
        return self
