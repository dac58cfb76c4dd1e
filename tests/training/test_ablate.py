"""gvvad-train ablate on manifests: the table, that it resumes, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.featured import make_features
from tests.training.test_mil import recipe_of, write_recipe
from training.ablate_report import arms_markdown, compared
from training.ablate_run import ArmFigures, HeadResult, Study, open_study
from training.ablation import Ablation, bases, table2, table3
from training.cells import CELLS, RESULT, Shelf
from training.cli import main
from training.manifest import Manifest, Row, load_manifest, write_manifest
from training.mil_data import Texts
from training.mil_recipe import load_mil_recipe

SEEDS = 2


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    return make_features(folder, videos=48, synthetic=12, filtered=True, windows=(8, 20))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.yaml", steps=6)


@pytest.fixture(scope="module")
def whole(manifest: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table II, done without a break by one worker."""
    out = tmp_path_factory.mktemp("whole")
    assert main(command("table2", manifest, recipe, out)) == 0
    return out


def command(what: str, manifest: Path, recipe: Path, out: Path, *more: str) -> list[str]:
    given = ["--manifest", str(manifest), "--recipe", str(recipe), "--out", str(out)]
    return ["ablate", what, *given, "--seeds", str(SEEDS), "--workers", "1", *more]


def table(out: Path, name: str = "table2") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return content


def test_a_table_stands_beside_the_paper_s_figures(whole: Path) -> None:
    text = (whole / "table2.md").read_text()
    assert (whole / "table2.png").read_bytes().startswith(b"\x89PNG")
    rows = table(whole)["rows"]
    assert [row["paper"] for row in rows] == [88.7, 88.9, 89.0, 89.0, 89.3]
    for row in rows:
        aucs = row["aucs"]
        line = f"| {row['name']} | {fmean(aucs):.2f} ± {stdev(aucs):.2f} | {row['paper']:.1f} |"
        assert line in text
    gains = np.subtract(rows[4]["aucs"], rows[0]["aucs"])
    assert f"{fmean(gains):+.2f} ± {stdev(gains):.2f}" in text
    assert f"Only {SEEDS} seeds" in text
    assert "![Generation, filtering, SSLS](table2.png)" in text


def test_nothing_is_left_of_a_finished_cell_but_its_figures(whole: Path) -> None:
    cells = list((whole / CELLS).iterdir())
    assert len(cells) == 5 * SEEDS
    assert {path.name for cell in cells for path in cell.iterdir()} == {RESULT, "curves.csv"}


def test_what_two_tables_share_is_done_once(manifest: Path, recipe: Path, whole: Path) -> None:
    before = {cell: (cell / RESULT).stat().st_mtime_ns for cell in (whole / CELLS).iterdir()}
    assert main(command("table3", manifest, recipe, whole)) == 0
    after = {cell: (cell / RESULT).stat().st_mtime_ns for cell in (whole / CELLS).iterdir()}
    assert {cell: after[cell] for cell in before} == before
    # Of ten variants, lambda 1 and 0.5 with the filter and real alone stand in Table II as well.
    assert len(after) - len(before) == 7 * SEEDS
    two = {row["name"]: row["aucs"] for row in table(whole)["rows"]}
    three = {row["name"]: row["aucs"] for row in table(whole, "table3")["rows"]}
    assert three["λ 0.5"] == two["generation, filter, SSLS"]
    assert three["λ 1 (no SSLS)"] == two["generation, filter"]


def test_frames_of_all_folds_are_pooled(manifest: Path, recipe: Path, tmp_path: Path) -> None:
    folds = [manifest.parent / f"fold-{n}.jsonl" for n in range(2)]
    for fold, path in enumerate(folds):
        rows = [deal(row, fold) for row in load_manifest(manifest).rows]
        write_manifest(path, rows)
    many = ["ablate", "bases", "--manifest", *map(str, folds), "--recipe", str(recipe)]
    rest = ["--seeds", str(SEEDS), "--workers", "1", "--out", str(tmp_path), "--json"]
    assert main([*many, *rest]) == 0
    study = open_study(folds, Texts(), SEEDS)
    shelf = Shelf(tmp_path / CELLS, HeadResult)
    named = [("r", load_mil_recipe(str(recipe)))]
    cells = study.cells(bases(named, filtered=True, made=True).arms[0])
    expected = []
    for seed in range(SEEDS):
        results = [shelf.result(cell) for cell in cells[2 * seed : 2 * seed + 2]]
        expected.append(100 * by_hand(load_manifest(manifest), results))
    assert table(tmp_path, "bases")["rows"][0]["aucs"] == pytest.approx(expected)
    assert table(tmp_path, "bases")["test_videos"] == 16


def deal(row: Row, fold: int) -> Row:
    """Every sixth group tests in the first fold, the next ones in the second."""
    tests = not row.synthetic and int(row.group.split("-")[1]) % 6 == fold
    return row.model_copy(update={"split": "test" if tests else None})


def by_hand(manifest: Manifest, results: list[HeadResult]) -> float:
    rows = {row.id: row for row in manifest.rows}
    labels, scores = [], []
    for video in (video for result in results for video in result.videos):
        truth = np.zeros(len(video.scores) * 16)
        for start, end in rows[video.id].anomalous or ():
            truth[start:end] = 1
        labels.append(truth)
        scores.append(np.repeat(video.scores, 16))
    return float(roc_auc_score(np.concatenate(labels), np.concatenate(scores)))


@pytest.mark.long
def test_the_outcome_is_the_same_for_two_workers(
    manifest: Path, recipe: Path, whole: Path, tmp_path: Path
) -> None:
    assert main(command("table2", manifest, recipe, tmp_path, "--workers", "2")) == 0
    for name in ("table2.md", "table2.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_table_killed_in_the_middle_goes_on_to_the_same_table(
    manifest: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", steps=60)
    outs = {name: tmp_path / name for name in ("whole", "killed")}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        given = command("table2", manifest, recipe, out, "--workers", "2", "--json")
        return subprocess.Popen([sys.executable, "-m", "training", *given], env=environment)

    assert start(outs["whole"]).wait(300) == 0
    run = start(outs["killed"])
    while not list(outs["killed"].glob(f"{CELLS}/*/{RESULT}")):
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (outs["killed"] / "table2.md").exists()
    assert start(outs["killed"]).wait(300) == 0
    for name in ("table2.md", "table2.json"):
        assert (outs["killed"] / name).read_bytes() == (outs["whole"] / name).read_bytes()


def test_data_scale_and_its_picture(manifest: Path, recipe: Path, tmp_path: Path) -> None:
    assert main(command("fig5", manifest, recipe, tmp_path, "--steps", "1")) == 0
    rows = table(tmp_path, "fig5")["rows"]
    assert len(rows) == 12
    real = [row["real_videos"] for row in rows[::3]]
    assert real == sorted(real)
    assert real[0] < real[-1] / 2
    assert rows[1]["against"] == "25 % real alone"
    assert rows[1]["paper_gain"] == pytest.approx(0.9)
    assert (tmp_path / "fig5.png").stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "runs", "said"),
    [("gap", 12, "the best λ is"), ("learnable", 36, "The paper's learnable λ descends")],
)
def test_open_questions_need_no_data_and_are_answered_once(
    what: str, runs: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["ablate", what, "--seeds", "2", "--steps", "4", "--workers", "1", "--out"]
    assert main([*given, str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert said in first
    results = list((tmp_path / CELLS).glob(f"*/{RESULT}"))
    assert len(results) == runs
    before = [path.stat().st_mtime_ns for path in results]
    assert (tmp_path / f"{what}.png").stat().st_size > 20_000
    assert main([*given, str(tmp_path), "--json"]) == 0
    assert [path.stat().st_mtime_ns for path in results] == before
    found = json.loads(capsys.readouterr().out)
    assert all(text in first for text in found["conclusions"])
    assert Path(found["report"]).read_text() in first


def edited(manifest: Path, path: Path, change: Callable[[Row], dict[str, object] | None]) -> Path:
    """The manifest with rows changed, or dropped where there is no change."""
    rows = [(row, change(row)) for row in load_manifest(manifest).rows]
    chosen = [row.model_copy(update=update) for row, update in rows if update is not None]
    write_manifest(manifest.parent / path.name, chosen)
    return manifest.parent / path.name


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: {"split": None}, "is marked as test"),
        (lambda row: None if row.synthetic else {}, "a manifest has none"),
        (lambda row: {"kept": None}, "give --without-filter"),
        (
            lambda row: {} if row.split != "test" or row.label == "normal" else None,
            "both labels are needed",
        ),
        (
            lambda row: {"anomalous": None} if row.split == "test" else {},
            "nothing says when",
        ),
    ],
)
def test_a_manifest_that_cannot_be_compared_on_is_refused(
    change: Callable[[Row], dict[str, object] | None],
    said: str,
    manifest: Path,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = edited(manifest, tmp_path / "edited.jsonl", change)
    out = tmp_path / "out"
    assert said in refused(command("table2", path, recipe, out), capsys)
    assert not out.exists()


def test_options_that_cannot_be_are_refused(
    manifest: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*more: str) -> str:
        return refused(command("table2", manifest, recipe, tmp_path / "out", *more), capsys)

    assert "--seeds (1) must be 2 to 1000" in said("--seeds", "1")
    assert "--workers (0)" in said("--workers", "0")
    assert "--steps (0)" in said("--steps", "0")
    assert "neither a file nor one of" in said("--recipe", "gone")
    assert "stands in" in said("--manifest", str(manifest), str(manifest))
    assert "cannot be read" in said("--prompts", str(tmp_path / "gone.npy"))
    assert "--seeds (0)" in refused(["ablate", "gap", "--seeds", "0", "--out", "o"], capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "open question 2"),
        (("bases",), "several are folds"),
        (("gap",), "under 5 their spread"),
    ],
)
def test_help_says_what_there_is(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["ablate", *arguments, "--help"])
    assert stopped.value.code == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_without_a_filter_its_rows_are_left_out(
    manifest: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = edited(manifest, tmp_path / "bare.jsonl", lambda row: {"kept": None})
    assert main(command("table2", path, recipe, tmp_path, "--without-filter", "--steps", "1")) == 0
    names = [row["name"] for row in table(tmp_path)["rows"]]
    assert names == ["real alone", "generation", "generation, SSLS"]
    assert "Rows with the filter are left out" in capsys.readouterr().out


def test_a_broken_result_is_refused_with_what_to_remove(
    manifest: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = command("table2", manifest, recipe, tmp_path, "--steps", "1")
    assert main(given) == 0
    capsys.readouterr()
    broken = next((tmp_path / CELLS).glob(f"*/{RESULT}"))
    broken.write_text("{}")
    assert f"remove {broken.parent}, and it is done again" in refused(given, capsys)


def test_features_made_anew_are_other_cells(tmp_path: Path) -> None:
    manifest = make_features(tmp_path / "features", videos=24, synthetic=4)
    arm = table2(recipe_of(), filtered=False).arms[0]
    before = open_study([manifest], Texts(), 2).cells(arm)[0].key
    assert open_study([manifest], Texts(), 2).cells(arm)[0].key == before
    file = next(manifest.parent.glob("*.npy"))
    np.save(file, np.load(file) * 2)
    assert open_study([manifest], Texts(), 2).cells(arm)[0].key != before


def test_a_difference_is_bold_only_beyond_noise(manifest: Path) -> None:
    ablation = table3(recipe_of(), filtered=True)
    chosen = Ablation("table3", "The weight", ablation.arms[3:5], ablation.notes)
    study = Study((load_manifest(manifest),), seeds=tuple(range(5)))

    def line(*aucs: float) -> str:
        found = [
            ArmFigures(chosen.arms[0], aucs, 30.0, 12.0, (0.5,) * 5),
            ArmFigures(chosen.arms[1], (80.0, 81.0, 82.0, 83.0, 84.0), 30.0, 12.0, (1.0,) * 5),
        ]
        text = arms_markdown(chosen, study, compared(found))
        assert "Only" not in text
        return next(row for row in text.splitlines() if row.startswith("| λ 0.5"))

    assert "| **+1.00 ± 0.71** | +0.3 | 30 + 12 | 0.50 ± 0.00 |" in line(82, 82, 83, 84, 84)
    assert "| +1.00 ± 2.12, within noise | +0.3 |" in line(84, 82, 83, 84, 82)
