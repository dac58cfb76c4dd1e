"""Recipes of heads on precomputed features: GV-VAD on RTFM, TEVAD and LAP, and causal forms."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from training.clips import TrainingError
from training.head import Fusion, HeadSpec, Text
from training.learner import LearnerSpec
from training.objective import ObjectiveSpec
from training.recipe import Count, Part, Positive, Share, read_yaml
from training.scaling import ScalingSpec, Schedule
from training.semantic import BankSize

RECIPES = Path(__file__).parent / "recipes"
BUILT_IN = ("rtfm", "tevad", "lap", "lap-causal", "lap-bank")

T = TypeVar("T")


def _known(kind: type[T]) -> BeforeValidator:
    """Refuse keys that a dataclass has not; its own checks run after that."""
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]

    def check(content: Any) -> Any:
        if isinstance(content, dict) and (unknown := sorted(map(str, content.keys() - names))):
            raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(names))}")
        return content

    return BeforeValidator(check)


class SchedulePart(Part):
    """A factor on lambda; see `Schedule`."""

    rise: Literal["none", "linear", "exponential", "cosine"] = "linear"
    rise_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    fall: Literal["none", "cosine", "steps"] = "none"


class ScalingPart(Part):
    """Who decides lambda; see `ScalingSpec`."""

    kind: Literal["fixed", "learnable", "uncertainty", "meta"] = "fixed"
    value: Annotated[float, Field(ge=0)] = 1.0
    limit: Positive = 2.0
    rate: Positive = 0.3
    schedule: SchedulePart = SchedulePart()

    @property
    def spec(self) -> ScalingSpec:
        schedule = Schedule(**self.schedule.model_dump())
        return ScalingSpec(self.kind, self.value, self.limit, self.rate, schedule)


class MilRecipe(Part):
    """A whole run on features.

    Attributes:
        detector: tells it from one that learns without labels.
        name: of the detector.
        seed: every random choice follows from it.
        text: what is read beside the features: sentence embeddings of captions, or those of a
            bank's sentences that are nearest to a window.
        fusion: of both.
        hidden: widths of the score network's hidden layers.
        dropout: in training.
        half_life_windows: of the causal form's memory; null for the papers' form.
        direct: a linear score of the feature beside the network's.
        windows: "segments" cuts every video into `context` equal parts; "contiguous" takes
            `context` windows in a row, as a stream delivers them.
        context: T.
        lead: windows that come along before contiguous ones, as their past.
        each: normal and anomalous videos in a batch, so many of either.
        steps: of Adam.
        learning_rate: of Adam.
        weight_decay: of Adam, coupled.
        validation_share: of the groups' real videos, by label, that choose the checkpoint.
        held_out_share: of what is left, that a meta lambda asks.
        validate_every: steps between two validations.
        false_positive_rate: share of the windows of normal validation videos that reach the
            threshold, which goes into a bundle.
        released: the released code's objective, mistakes included, and its choice of the
            checkpoint on the test set.
        objective: terms and their weights.
        scaling: SSLS.
    """

    detector: Literal["mil"] = "mil"
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    seed: Annotated[int, Field(ge=0)] = 0
    text: Text
    fusion: Fusion = "concat"
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (512, 128)
    dropout: Share = 0.7
    half_life_windows: Positive | None = None
    direct: bool = False
    windows: Literal["segments", "contiguous"]
    context: Count
    lead: Annotated[int, Field(ge=0)] = 0
    each: Count = 32
    steps: Count = 1000
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 5e-3
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    held_out_share: Share = 0.1
    validate_every: Count = 50
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1
    released: bool = False
    objective: Annotated[dict[str, Any], _known(ObjectiveSpec)] = Field(default_factory=dict)
    scaling: ScalingPart = ScalingPart()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        assert self.objective_spec  # its own checks
        assert self.scaling.spec
        if self.half_life_windows is not None and self.windows == "segments":
            raise ValueError("a causal head needs windows: contiguous, as a stream delivers them")
        if self.objective_spec.k > self.context:
            raise ValueError(f"objective.k must be at most context ({self.context})")
        if self.released and (self.context % 32 or self.scaling.kind not in ("fixed", "learnable")):
            raise ValueError("released needs a context of 32 or 64 and fixed or learnable scaling")
        return self

    @property
    def objective_spec(self) -> ObjectiveSpec:
        return TypeAdapter(ObjectiveSpec).validate_python(self.objective)

    def head(self, feature_dim: int, text_dim: int | None, bank: BankSize | None) -> HeadSpec:
        """The head for features and captions of those widths, and for a bank.

        Raises:
            TrainingError: no head can be of those widths.
        """
        causal = self.half_life_windows is not None
        try:
            return HeadSpec(
                feature_dim,
                self.dropout,
                self.hidden,
                self.half_life_windows,
                self.text,
                {"none": None, "caption": text_dim, "clip_bank": feature_dim}[self.text],
                self.fusion,
                bank,
                direct=self.direct,
                frozen_norms=causal,
            )
        except ValueError as error:
            raise TrainingError(
                f"recipe {self.name} makes no head for features of {feature_dim} numbers"
                f"{'' if text_dim is None else f' and captions of {text_dim}'}: {error}; extract "
                "them with another encoder"
            ) from None

    @property
    def learner(self) -> LearnerSpec:
        return LearnerSpec(
            self.steps,
            self.learning_rate,
            self.weight_decay,
            self.objective_spec,
            self.scaling.spec,
            self.released,
            seed=self.seed,
        )


def load_mil_recipe(name: str) -> MilRecipe:
    """Read a recipe by its name or its file.

    Raises:
        TrainingError: neither, no YAML, an unknown key, or a value that does not fit.
    """
    if name in BUILT_IN:
        return read_yaml(RECIPES / f"{name}.yaml", MilRecipe, "recipe")
    path = Path(name)
    if not path.exists():
        raise TrainingError(f"recipe {name!r} is neither a file nor one of {', '.join(BUILT_IN)}")
    return read_yaml(path, MilRecipe, "recipe")
