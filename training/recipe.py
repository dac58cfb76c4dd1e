"""Recipes: everything that decides what a training run makes, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.contract import WINDOW_FRAMES, WindowSpec
from training.clips import TrainingError
from training.encoder import EncoderSpec
from training.fitting import Shares
from training.head import HeadSpec, embedded

EMBEDDED = Path(__file__).parent / "recipes" / "embedded.yaml"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


R = TypeVar("R", bound=BaseModel)


class Part(BaseModel):
    """A part of a recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderRecipe(Part):
    """The encoder and how each of its members is fitted.

    Attributes:
        contrast: spread of the contrast that training draws, as the standard
            deviation of its logarithm.
    """

    members: Count
    width: Annotated[int, Field(ge=2, multiple_of=2)]
    embedding: Annotated[int, Field(ge=8, multiple_of=8)]
    dropout: Share
    steps: Count
    batch: Annotated[int, Field(ge=4, multiple_of=2)]
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Share
    contrast: Annotated[float, Field(ge=0, le=3)]
    average: Share

    @property
    def spec(self) -> EncoderSpec:
        return EncoderSpec(self.members, self.width, self.embedding, self.dropout)


class HeadRecipe(Part):
    """The head and how it is fitted."""

    half_life_windows: Positive
    dropout: Share
    member_dropout: Share
    steps: Count
    streams: Count
    longest: Annotated[int, Field(ge=1, le=256)]
    variants: Count
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    label_smoothing: Share
    smoothness: Annotated[float, Field(ge=0)]
    average: Share

    def spec(self, feature_dim: int) -> HeadSpec:
        """The head for an encoder of that width."""
        return embedded(feature_dim, self.half_life_windows, self.dropout)


class Recipe(Part):
    """A whole run.

    Attributes:
        name: of the bundle.
        seed: every random choice follows from it.
        fps: rate that streams are resampled to, Hz.
        folds: parts that the sources are dealt to for out-of-fold scores.
        synthetic_weight: lambda of SSLS, the loss weight of generated clips.
        same_source: share of pairs of an anomalous and a normal clip that are
            of one source.
        other_normals: share of the other normal draws that come from datasets
            without anomalies.
        leave_out: beginnings of names of clips that are not trained on.
        false_positive_rate: share of out-of-fold normal windows over the threshold.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    seed: Annotated[int, Field(ge=0)]
    fps: Annotated[float, Field(ge=0.1, le=240)]
    folds: Annotated[int, Field(ge=2)]
    synthetic_weight: Annotated[float, Field(ge=0)]
    same_source: Annotated[float, Field(ge=0, le=1)]
    other_normals: Share
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]
    leave_out: tuple[str, ...]
    encoder: EncoderRecipe
    head: HeadRecipe

    @property
    def shares(self) -> Shares:
        return Shares(self.same_source, self.other_normals)

    @property
    def window(self) -> WindowSpec:
        return WindowSpec(WINDOW_FRAMES, self.fps)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; unknown keys are refused.

    Raises:
        TrainingError: no file, no YAML mapping, or a value that does not fit.
    """
    return read_yaml(path, Recipe, "recipe")


def read_yaml(path: Path, kind: type[R], what: str) -> R:
    """Read a YAML file of some kind.

    Raises:
        TrainingError: no file, no YAML mapping, an unknown key or a value that does not fit;
            it begins with `what` and the path.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{what} {path} cannot be read as YAML ({reason})") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrainingError(f"{what} {path}: {where}: {first['msg']}") from None
