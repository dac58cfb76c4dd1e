"""The recipe of a density, and which recipe a name or a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from training.clips import TrainingError
from training.density import MemoryRule, Method
from training.mil_recipe import BUILT_IN, RECIPES, MilRecipe
from training.recipe import Count, Part, Positive, read_yaml

HEAD_RECIPES = (*BUILT_IN, "density", "density-cells")


class DensityRecipe(Part):
    """A detector that is fitted to normal videos alone.

    Attributes:
        detector: tells it from a head that is fitted by labels.
        name: of the detector.
        seed: every random choice follows from it.
        method: distance to the nearest normal cells, or to the mean of all in units of
            their covariance.
        k: nearest rows of the memory whose distances are averaged; a Gaussian has one.
        memory: cells kept at most.
        keep: "spread" keeps cells that lie far apart, "random" any.
        shrinkage: share of a round covariance in the Gaussian's.
        cells: equal parts of the feature that are judged each by itself.
        top: the farthest of them that are averaged.
        half_life_windows: of a running mean over a stream's windows; null for none.
        validation_share: of the normal videos that set score and threshold.
        false_positive_rate: share of the windows of those that reach the threshold.
    """

    detector: Literal["density"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    seed: Annotated[int, Field(ge=0)] = 0
    method: Method = "knn"
    k: Count = 3
    memory: Annotated[int, Field(ge=1, le=16384)] = 1024
    keep: Literal["spread", "random"] = "spread"
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 0.1
    cells: Count = 1
    top: Count = 1
    half_life_windows: Positive | None = None
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @property
    def rule(self) -> MemoryRule:
        return MemoryRule(
            self.method, self.memory, self.keep == "spread", self.shrinkage, self.seed
        )

    @property
    def neighbours(self) -> int:
        """Rows of the memory that a distance is taken to."""
        return self.k if self.method == "knn" else 1


class _Kind(BaseModel):
    """The one key that says how to read the others."""

    detector: Literal["mil", "density"] = "mil"


def load_head_recipe(name: str) -> MilRecipe | DensityRecipe:
    """Read a recipe of a head on features by its name or its file.

    Raises:
        TrainingError: neither, no YAML, an unknown key, or a value that does not fit.
    """
    path = RECIPES / f"{name}.yaml" if name in HEAD_RECIPES else Path(name)
    if not path.exists():
        raise TrainingError(
            f"recipe {name!r} is neither a file nor one of {', '.join(HEAD_RECIPES)}"
        )
    if read_yaml(path, _Kind, "recipe").detector == "density":
        return read_yaml(path, DensityRecipe, "recipe")
    return read_yaml(path, MilRecipe, "recipe")
