"""gvvad-train: bad input is one sentence and exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.footage import make_footage, write_recipe
from training.cli import main


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_render_of_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["render", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    assert "nowhere is not a folder" in refused(arguments, capsys)
    assert not (tmp_path / "out").exists()


def test_render_of_truth_without_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ground_truth.json").write_text("{}")
    arguments = ["render", str(tmp_path), "--out", str(tmp_path / "out")]
    assert "names no clip" in refused(arguments, capsys)


def test_train_without_extraction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--windows", str(tmp_path), "--out", str(tmp_path / "run")]
    assert "run gvvad-train render" in refused(arguments, capsys)


def test_train_with_an_unknown_recipe_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", colour="red")
    arguments = ["train", "--windows", str(tmp_path), "--out", str(tmp_path), "--recipe"]
    assert "colour: Extra inputs" in refused([*arguments, str(recipe)], capsys)


def test_train_with_no_worker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--windows", str(tmp_path), "--out", str(tmp_path), "--workers", "0"]
    assert "--workers (0)" in refused(arguments, capsys)


@pytest.mark.parametrize(
    ("sources", "kinds", "sentence"),
    [(2, ("calm",), "both labels"), (1, ("calm", "wild"), "cannot fill 2 folds")],
)
def test_train_on_clips_that_cannot_be_split(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sources: int,
    kinds: tuple[str, ...],
    sentence: str,
) -> None:
    data = make_footage(tmp_path / "data", sources)
    truth = data / "scenes" / "ground_truth.json"
    entries = json.loads(truth.read_text())
    truth.write_text(
        json.dumps({name: entry for name, entry in entries.items() if name.startswith(kinds)})
    )
    windows, out = str(tmp_path / "windows"), str(tmp_path / "run")
    assert main(["render", str(data), "--out", windows]) == 0
    capsys.readouterr()
    recipe = str(write_recipe(tmp_path / "recipe.yaml"))
    arguments = ["train", "--windows", windows, "--out", out, "--recipe", recipe, "--workers", "1"]
    assert sentence in refused(arguments, capsys)


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "render" in text
    assert "train" in text
