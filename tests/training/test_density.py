"""A density: what its distances and scores are, and how a run of it is made or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from tests.support.featured import WIDTH, make_features
from training.bags import Contents, open_bags
from training.cli import main
from training.clips import TrainingError
from training.density import Density, DensitySpec, Memory, MemoryRule, fit_memory
from training.density_recipe import DensityRecipe, load_head_recipe
from training.density_run import density_scores, train_density
from training.head_run import HEAD_FILE, load_run
from training.manifest import Manifest, Row, load_manifest, write_manifest
from training.mil_recipe import MilRecipe
from training.motion_cells import CellSpec

RULE = MemoryRule("knn", rows=64, spread=True, shrinkage=0.1, seed=0)


def drawn(count: int, width: int = WIDTH, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def fitted(spec: DensitySpec, rule: MemoryRule = RULE) -> Density:
    memory = fit_memory(drawn(200, spec.cell_dim), rule)
    density = Density(replace(spec, rows=len(memory.rows)))
    density.remember(memory)
    density.calibrate([drawn(40, spec.feature_dim, seed=1)])
    return density


def test_distances_are_those_of_scikit_learn_to_the_nearest_rows() -> None:
    density = fitted(DensitySpec(WIDTH, cells=1, top=1, rows=64, k=3))
    near = NearestNeighbors(n_neighbors=3).fit((density.rows + density.mean).numpy())
    windows = drawn(30, seed=2)
    expected = near.kneighbors(windows.numpy())[0].mean(1)
    # Both count in fp32.
    np.testing.assert_allclose(density.distances(windows).numpy(), expected, rtol=1e-5)


def test_a_window_of_the_memory_is_at_no_distance_whatever_the_batch() -> None:
    """Not nearly none: a logarithm makes much of what cancelling leaves."""
    density = fitted(DensitySpec(WIDTH, 1, 1, 40, 1), replace(RULE, rows=40))
    known = 100 + drawn(40)
    density.remember(fit_memory(known, replace(RULE, rows=40)))
    assert density.distances(known).tolist() == [0.0] * 40
    near = known + 1e-3
    together = density.distances(near)
    alone = torch.cat([density.distances(one[None]) for one in near])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_a_gaussian_without_shrinkage_measures_by_the_covariance() -> None:
    rule = replace(RULE, method="gaussian", shrinkage=1e-9)
    density = fitted(DensitySpec(WIDTH, cells=1, top=1, rows=1, k=1), rule)
    normal, windows = drawn(200).double(), drawn(30, seed=2).double()
    apart = windows - normal.mean(0)
    inverse = torch.linalg.inv(torch.cov(normal.T, correction=0))
    expected = (apart @ inverse * apart).sum(1).sqrt()
    torch.testing.assert_close(
        density.distances(windows.float()).double(), expected, rtol=1e-5, atol=0
    )


@settings(max_examples=30, deadline=None)
@given(near=st.floats(3, 30), further=st.floats(1.05, 3), seed=st.integers(0, 100))
def test_a_window_that_lies_further_out_scores_higher(
    near: float, further: float, seed: int
) -> None:
    density = fitted(DensitySpec(WIDTH, cells=1, top=1, rows=64, k=3))
    density.deviation.fill_(1.0)  # so that no score reaches 1 in fp32
    direction = torch.nn.functional.normalize(drawn(1, seed=seed), dim=1)
    one, other = density(near * direction)[0], density(near * further * direction)[0]
    assert 0 < one < other < 1


def test_a_score_is_a_half_three_deviations_over_what_is_usual() -> None:
    density = fitted(DensitySpec(WIDTH, cells=1, top=1, rows=64, k=3))
    levels = density.levels(drawn(40, seed=1))
    assert levels.mean() == pytest.approx(float(density.centre), abs=1e-5)
    usual = density.scores(drawn(40, seed=1))
    assert usual.mean() < 0.1
    density.centre -= 3 * density.deviation
    assert density.scores(drawn(40, seed=1)).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("half_life", [None, 2.5])
def test_window_by_window_gives_the_scores_of_the_whole_stream(half_life: float | None) -> None:
    spec = DensitySpec(12, cells=3, top=2, rows=64, k=3, half_life_windows=half_life)
    density, streams = fitted(spec), torch.stack([drawn(70, 12, seed=3), drawn(70, 12, seed=4)])
    state = tuple(torch.zeros(2, *shape) for shape in spec.states.values())
    assert len(state) == (0 if half_life is None else 2)
    steps = []
    for now in streams.unbind(1):
        score, *after = density(now, *state)
        state = tuple(after)
        steps.append(score)
    whole = torch.stack([density.scores(stream) for stream in streams])
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-5, atol=1e-6)


def test_the_farthest_cells_speak_for_a_window_wherever_they_are() -> None:
    density = fitted(DensitySpec(12, cells=3, top=1, rows=64, k=1))
    calm = density.rows[:3] + density.mean
    for place in range(3):
        odd = calm.clone()
        odd[place] += 10
        found = density.distances(odd.flatten()[None])
        assert found == pytest.approx(float(density.distances(odd.flatten().roll(4)[None])))
        assert found > 10 > density.distances(calm.flatten()[None])


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_spread_memory_leaves_no_cell_as_far_away_as_chance_does(seed: int) -> None:
    cells = drawn(200, 3, seed)

    def farthest(memory: Memory) -> float:
        apart = torch.cdist(cells - memory.mean, memory.rows)
        return float(apart.amin(1).max())

    rule = replace(RULE, rows=20, seed=seed)
    assert farthest(fit_memory(cells, rule)) <= farthest(
        fit_memory(cells, replace(rule, spread=False))
    )


def test_windows_that_are_all_alike_still_give_finite_scores() -> None:
    for method in ("knn", "gaussian"):
        rule = replace(RULE, method=method)
        memory = fit_memory(torch.ones(9, 4), rule)
        density = Density(DensitySpec(4, cells=1, top=1, rows=len(memory.rows), k=1))
        density.remember(memory)
        density.calibrate([torch.ones(5, 4)])
        usual, odd = density.scores(torch.tensor([[1.0, 1, 1, 1], [2, 1, 1, 1]]))
        assert 0 <= usual < 0.5 < odd <= 1


SMALL: dict[str, object] = {"detector": "density", "name": "small", "validation_share": 0.3}


def recipe_of(**changes: object) -> DensityRecipe:
    return DensityRecipe.model_validate(SMALL | changes)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return load_manifest(make_features(tmp_path_factory.mktemp("features"), synthetic=4))


def test_anomalies_that_it_never_saw_are_found_by_evaluate(
    manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(manifest.path), tmp_path / "run"
    assert main(["train", "--manifest", path, "--recipe", "density", "--out", str(out)]) == 0
    judged = ["evaluate", "--manifest", path, "--head", str(out), "--out", str(tmp_path / "report")]
    capsys.readouterr()
    assert main([*judged, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"]["auc"]["value"] > 0.9


def test_only_normal_real_training_videos_are_opened(manifest: Manifest, tmp_path: Path) -> None:
    first = train_density(manifest, tmp_path / "a", recipe_of())
    others = [
        row.model_copy(update={"features": "gone.npy"})
        if row.label == "anomalous" or row.synthetic or row.split == "test"
        else row
        for row in manifest.rows
    ]
    assert sum(row.features == "gone.npy" for row in others) > len(others) / 2
    second = train_density(Manifest(manifest.path, tuple(others)), tmp_path / "b", recipe_of())
    assert second.fingerprint == first.fingerprint
    assert second.threshold == first.threshold


@pytest.mark.parametrize("changes", [{}, {"method": "gaussian"}, {"half_life_windows": 4.0}])
def test_a_run_reads_back_what_was_fitted(
    manifest: Manifest, tmp_path: Path, changes: dict[str, object]
) -> None:
    made = train_density(manifest, tmp_path, recipe_of(**changes))
    read = load_run(tmp_path)
    bag = open_bags(manifest, manifest.rows[:1], Contents())[0]
    assert isinstance(made.head, Density)
    assert isinstance(read.head, Density)
    assert torch.equal(density_scores(read.head, bag), density_scores(made.head, bag))
    assert replace(read, head=made.head) == made
    assert read.causal
    assert not read.reads_captions


def test_its_share_of_held_back_windows_reaches_the_threshold(
    manifest: Manifest, tmp_path: Path
) -> None:
    run = train_density(manifest, tmp_path, recipe_of(false_positive_rate=0.2))
    assert isinstance(run.head, Density)
    assert run.threshold is not None
    assert "reached by 20 % of" in run.threshold_rule
    bags = open_bags(manifest, [row for row in manifest.rows if row.label == "normal"], Contents())
    scores = torch.cat([density_scores(run.head, bag) for bag in bags])
    # Windows that it was fitted to lie at no distance, so over all normal ones fewer reach it.
    assert 0 < float((scores >= run.threshold).double().mean()) < 0.2


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_makes_the_same_run(manifest: Manifest, tmp_path: Path, seed: int) -> None:
    recipe = recipe_of(seed=seed, memory=20, keep="random")
    runs = [train_density(manifest, tmp_path / name, recipe) for name in "ab"]
    weights = [(tmp_path / name / "head.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert runs[0].threshold == runs[1].threshold


def refused(manifest: Manifest, folder: Path, **changes: object) -> str:
    with pytest.raises(TrainingError) as found:
        train_density(manifest, folder / "never", recipe_of(**changes))
    assert not (folder / "never").exists()
    return str(found.value)


def test_data_that_does_not_fit_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    anomalous = tuple(row for row in manifest.rows if row.label == "anomalous")
    none = Manifest(manifest.path, anomalous)
    assert "0 of 14 rows are real normal videos" in refused(none, tmp_path)
    assert "lower k in the recipe" in refused(manifest, tmp_path, k=5000, memory=6000)
    assert "a memory of 2 cannot hold k (3)" in refused(manifest, tmp_path, memory=2)
    assert "cells (3) does not divide" in refused(manifest, tmp_path, cells=3)
    marked = [row.model_copy(update={"split": "validation"}) for row in manifest.rows]
    assert "none is left to fit to" in refused(Manifest(manifest.path, tuple(marked)), tmp_path)


def test_features_of_another_width_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    train_density(manifest, tmp_path / "run", recipe_of())
    np.save(tmp_path / "wide.npy", np.zeros((4, WIDTH + 1), np.float32))
    row = Row(id="wide", label="normal", group="g", features="wide.npy", encoder="tiny")
    write_manifest(tmp_path / "m.jsonl", [row])
    bag = open_bags(load_manifest(tmp_path / "m.jsonl"), [row], Contents())[0]
    head = load_run(tmp_path / "run").head
    assert isinstance(head, Density)
    with pytest.raises(TrainingError, match=f"are {WIDTH + 1} wide, the density was fitted to"):
        density_scores(head, bag)


def test_a_broken_description_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    train_density(manifest, tmp_path, recipe_of())
    content = json.loads((tmp_path / HEAD_FILE).read_text())
    content["head"]["k"] = 0
    (tmp_path / HEAD_FILE).write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=r"k \(0\) must be 1 to rows .* train again"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scaling": {"kind": "meta"}}, "scaling: Extra inputs"),
        ({"text": "clip_bank"}, "text: Extra inputs"),
        ({"k": 0}, "k: Input should be greater than or equal to 1"),
        ({"validation_share": 0}, "validation_share: Input should be greater than 0"),
        ({"detector": "flow"}, "detector: Input should be 'mil' or 'density'"),
    ],
)
def test_a_recipe_with_a_wrong_key_names_it(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    with pytest.raises(TrainingError, match="recipe") as found:
        load_head_recipe(str(path))
    assert said in str(found.value)


def test_a_recipe_says_which_detector_it_makes(tmp_path: Path) -> None:
    assert isinstance(load_head_recipe("density"), DensityRecipe)
    cells = load_head_recipe("density-cells")
    assert isinstance(cells, DensityRecipe)
    assert cells.cells == CellSpec(240, 360).cells
    assert isinstance(load_head_recipe("lap-causal"), MilRecipe)
    content = yaml.safe_load(Path("training/recipes/lap-causal.yaml").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content | {"detector": "mil"}))
    assert load_head_recipe(str(tmp_path / "own.yaml")) == load_head_recipe("lap-causal")
    with pytest.raises(TrainingError, match=r"nor one of .*, density, density-cells$"):
        load_head_recipe("densities")


@pytest.mark.parametrize("option", ["--bank", "--prompts"])
def test_files_for_heads_that_read_text_are_refused(
    manifest: Manifest, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--manifest", str(manifest.path), "--recipe", "density"]
    assert main([*arguments, option, "some.file", "--out", str(tmp_path / "run")]) == 2
    assert f"{option} does not go with a density" in capsys.readouterr().err
