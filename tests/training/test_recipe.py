"""Recipes: complete, typed, without unknown keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.contract import WindowSpec
from tests.support.footage import write_recipe
from training.clips import TrainingError
from training.recipe import EMBEDDED, load_recipe


def test_the_embedded_recipe_is_of_ten_hertz_windows() -> None:
    recipe = load_recipe(EMBEDDED)
    assert recipe.window == WindowSpec(sampled_frames=16, fps=10.0)
    assert recipe.encoder.spec.feature_dim % 8 == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"folds": 1}, "folds: .*greater than or equal to 2"),
        ({"fps": "fast"}, "fps: .*number"),
        ({"same_source": 1.5}, "same_source"),
        ({"head": {}}, r"head\.half_life_windows: Field required"),
        ({"name": "No Such Name"}, "name: "),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", **change)
    with pytest.raises(TrainingError, match=sentence):
        load_recipe(path)


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(TrainingError, match=r"recipe .*recipe\.yaml"):
        load_recipe(path)


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
