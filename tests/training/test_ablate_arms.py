"""Arms: which videos each sees, and that they can be compared seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.featured import make_features
from tests.training.test_mil import recipe_of
from training.ablation import (
    Arm,
    arm_rows,
    bases,
    beginning,
    fig5,
    fixed,
    says_kept,
    table2,
    table3,
)
from training.manifest import Manifest, Row, load_manifest

RECIPE = recipe_of()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("features")
    return load_manifest(make_features(folder, videos=48, synthetic=12, filtered=True))


def row(number: int, group: str, *, anomalous: bool) -> Row:
    label = "anomalous" if anomalous else "normal"
    return Row.model_validate({"id": f"v{number}", "label": label, "group": group})


def ids(rows: Sequence[Row], split: str, *, synthetic: bool = False) -> set[str]:
    return {row.id for row in rows if row.split == split and row.synthetic is synthetic}


groups = st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=30)


@given(groups, st.integers(0, 5))
def test_more_real_videos_hold_all_of_less(labels: list[list[bool]], seed: int) -> None:
    rows = [
        row(10 * g + n, f"g{g}", anomalous=anomalous)
        for g, members in enumerate(labels)
        for n, anomalous in enumerate(members)
    ]
    parts = [beginning(rows, share, seed) for share in (0.25, 0.5, 0.75, 1.0)]
    for less, more in pairwise(parts):
        assert more[: len(less)] == less
    assert sorted(parts[-1]) == sorted({row.group for row in rows})
    wanted = 0.5 * len(rows)
    sizes = [len(labels[int(name[1:])]) for name in parts[1]]
    assert sum(sizes) >= wanted > sum(sizes[:-1])


@given(groups, st.integers(0, 5))
def test_labels_are_off_by_no_more_than_the_most_one_sided_group(
    labels: list[list[bool]], seed: int
) -> None:
    rows = [
        row(10 * g + n, f"g{g}", anomalous=anomalous)
        for g, members in enumerate(labels)
        for n, anomalous in enumerate(members)
    ]
    share = np.mean([row.label == "anomalous" for row in rows])
    surplus = {f"g{g}": sum(m) - share * len(m) for g, m in enumerate(labels)}
    off = np.cumsum([surplus[name] for name in beginning(rows, 1.0, seed)])
    assert np.abs(off).max() <= max(map(abs, surplus.values())) + 1e-9


def test_the_choice_follows_from_the_seed_alone() -> None:
    rows = [row(n, f"g{n}", anomalous=n % 3 == 0) for n in range(40)]
    assert beginning(rows, 0.3, 1) == beginning(rows[::-1], 0.3, 1)
    assert beginning(rows, 0.3, 1) != beginning(rows, 0.3, 2)


def test_every_arm_of_a_seed_validates_and_tests_on_the_same_videos(manifest: Manifest) -> None:
    arms = [*fig5(RECIPE, filtered=True).arms, *table3(RECIPE, filtered=True).arms]
    rows = [arm_rows(manifest, arm, 3) for arm in arms]
    for split in ("validation", "test"):
        assert len({frozenset(ids(one, split)) for one in rows}) == 1
        assert ids(rows[0], split)
    others = arm_rows(manifest, arms[0], 4)
    assert ids(others, "validation") != ids(rows[0], "validation")


def test_arms_see_the_synthetic_videos_that_they_name(manifest: Manifest) -> None:
    made = {row.id: row.kept for row in manifest.rows if row.synthetic}
    arms = {arm.name: arm_rows(manifest, arm, 0) for arm in table2(RECIPE, filtered=True).arms}
    assert ids(arms["real alone"], "train", synthetic=True) == set()
    assert ids(arms["generation"], "train", synthetic=True) == set(made)
    kept = {name for name, kept in made.items() if kept}
    assert 0 < len(kept) < len(made)
    assert ids(arms["generation, filter, SSLS"], "train", synthetic=True) == kept
    assert all(row.kept is None for row in arms["generation"])  # or the split would drop them


def test_a_share_takes_whole_groups_of_the_training_videos(manifest: Manifest) -> None:
    arm = Arm("half", RECIPE, "all", 0.5)
    half, whole = (arm_rows(manifest, a, 0) for a in (arm, Arm("whole", RECIPE, "all")))
    assert ids(half, "train") < ids(whole, "train")
    assert ids(half, "train", synthetic=True) == ids(whole, "train", synthetic=True)
    chosen = {row.group for row in half if row.split == "train" and not row.synthetic}
    left = {row.group for row in whole if row.id not in {one.id for one in half}}
    assert not chosen & left


def test_tables_stand_beside_the_paper_s_figures() -> None:
    two = {arm.name: arm.paper for arm in table2(RECIPE, filtered=True).arms}
    assert two["real alone"] == 88.7
    assert two["generation, filter, SSLS"] == 89.3
    three = {arm.name: arm for arm in table3(RECIPE, filtered=True).arms}
    assert three["λ 0.5"].paper == 89.3
    assert three["learnable, as in the paper"].recipe.scaling.rate == RECIPE.learning_rate
    assert three["meta"].paper is None
    assert [arm.share for arm in fig5(RECIPE, filtered=True).arms[::3]] == [0.25, 0.5, 0.75, 1]
    based = bases([("rtfm", RECIPE)], filtered=True, made=True).arms
    assert [arm.paper for arm in based] == [87.1, 87.3]


def test_only_lambda_differs_between_rows_of_a_sweep() -> None:
    recipe = recipe_of(scaling={"kind": "meta", "schedule": {"rise": "cosine"}})
    for arm in table3(recipe, filtered=False).arms:
        scaling = arm.recipe.scaling
        assert scaling.schedule.rise == "cosine"
        assert arm.recipe.model_copy(update={"scaling": recipe.scaling}) == recipe
    assert fixed(recipe, 0.25).scaling.spec.value == 0.25


def test_a_manifest_says_kept_where_a_filter_has_judged(manifest: Manifest) -> None:
    assert says_kept(manifest)
    bare = [row.model_copy(update={"kept": None}) for row in manifest.rows]
    assert not says_kept(Manifest(Path("m"), tuple(bare)))
