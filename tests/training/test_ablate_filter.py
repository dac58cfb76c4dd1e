"""gvvad-train ablate filter: which videos each row trains on, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.featured import make_features
from tests.training.test_ablate import command
from tests.training.test_mil import recipe_of, write_recipe
from training.ablate_filter import CHANCE, FILTER, check_known, filter_arms
from training.ablation import Arm, arm_rows
from training.cli import main
from training.clips import TrainingError
from training.filter.criteria import BY_NAME, Limit
from training.filter.findings import FINDINGS, Findings, load_findings
from training.filter.verdicts import ByHand, Judged, Rule, decide
from training.manifest import Manifest, load_manifest, write_manifest

NAMES = ("motion", "likeness", "prompt")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("features")
    return load_manifest(make_features(folder, videos=48, synthetic=16, windows=(8, 20)))


@pytest.fixture(scope="module")
def found(manifest: Manifest) -> Findings:
    random = np.random.default_rng(0)
    videos = tuple(
        Judged(id=row.id, label=row.label, values={n: float(random.random()) for n in NAMES})
        for row in manifest.rows
        if row.synthetic
    )
    limits = dict.fromkeys(BY_NAME, Limit(low=0.2, high=0.8))
    rule = Rule(criteria=NAMES, shares={"anomalous": 0.5, "normal": 0.25}, limits=limits)
    by_hand = ByHand(keep=frozenset([videos[0].id]))
    verdicts = tuple(decide(videos, rule, by_hand))
    return Findings(
        encoder="tiny", rule=rule, real={}, videos=videos, verdicts=verdicts, skipped={}
    )


def trained_on(manifest: Manifest, arm: Arm, seed: int) -> set[str]:
    return {row.id for row in arm_rows(manifest, arm, seed) if row.synthetic}


def test_every_row_trains_on_what_its_criteria_keep(manifest: Manifest, found: Findings) -> None:
    arms = {arm.name: arm for arm in filter_arms(recipe_of(), found).arms}
    assert set(arms) == {
        "real alone", "all generated", FILTER, CHANCE,
        *(f"{name} alone" for name in NAMES), *(f"without {name}" for name in NAMES),
    }  # fmt: skip
    made = {row.id for row in manifest.rows if row.synthetic}
    assert trained_on(manifest, arms["real alone"], 0) == set()
    assert trained_on(manifest, arms["all generated"], 0) == made
    assert trained_on(manifest, arms[FILTER], 3) == {v.id for v in found.verdicts if v.kept}
    best = sorted(
        (v for v in found.videos if v.label == "anomalous"),
        key=lambda v: -(v.values["prompt"] or 0),
    )[:4]
    kept = trained_on(manifest, arms["prompt alone"], 0)
    assert {video.id for video in best} == {name for name in kept if int(name[6:]) % 2}
    assert trained_on(manifest, arms["without prompt"], 0) != kept


def test_chance_keeps_as_many_of_each_label_others_for_every_seed(
    manifest: Manifest, found: Findings
) -> None:
    arms = {arm.name: arm for arm in filter_arms(recipe_of(), found).arms}
    drawn = [trained_on(manifest, arms[CHANCE], seed) for seed in range(4)]
    labels = {row.id: row.label for row in manifest.rows}
    for names in drawn:
        assert [labels[name] for name in sorted(names)].count("anomalous") == 4
        assert len(names) == 4 + 2
    assert len({frozenset(names) for names in drawn}) > 1
    assert drawn[0] == trained_on(manifest, arms[CHANCE], 0)


def test_the_table_is_written(manifest: Manifest, found: Findings, tmp_path: Path) -> None:
    found.save(tmp_path)
    assert load_findings(tmp_path / FINDINGS) == found
    recipe = write_recipe(tmp_path / "recipe.yaml", steps=3)
    more = ("--verdicts", str(tmp_path / FINDINGS))
    assert main(command("filter", manifest.path, recipe, tmp_path / "out", *more)) == 0
    rows = json.loads((tmp_path / "out" / "filter.json").read_text())["rows"]
    numbers = {row["name"]: row["synthetic_videos"] for row in rows}
    assert numbers["all generated"] == 16
    assert numbers[FILTER] in (6, 7)  # one more may be kept by hand
    text = (tmp_path / "out" / "filter.md").read_text()
    assert "without motion" in text
    assert "By chance" in text
    assert (tmp_path / "out" / "filter.png").is_file()


def test_verdicts_of_other_videos_are_refused(
    manifest: Manifest, found: Findings, tmp_path: Path
) -> None:
    fewer = found.model_copy(update={"videos": found.videos[1:]})
    with pytest.raises(TrainingError, match="'video-48' of it was not judged"):
        check_known([manifest], fewer)
    real = [row for row in manifest.rows if not row.synthetic]
    write_manifest(tmp_path / "real.jsonl", real)
    with pytest.raises(TrainingError, match="it has none of them"):
        check_known([load_manifest(tmp_path / "real.jsonl")], found)


def test_a_file_that_holds_no_verdicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read"):
        load_findings(tmp_path / "nowhere.json")
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"is no verdicts\.json of gvvad-train filter"):
        load_findings(tmp_path / "odd.json")
