"""Spoiled ground truths: used as they are, or refused in one sentence."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from rich.console import Console

from server.alerts import AlertPolicy
from server.backtest import backtest
from server.bundle import load_bundle
from server.cli import main
from server.truth import TruthError, load_truth
from tests.support.clips import grey_clip
from tests.support.mutations import (
    UNREADABLE,
    assert_refused,
    assert_sentence,
    few_or_many,
    holds,
    odd_values,
    spoiled_bytes,
    spoiled_tree,
)
from tests.support.tiny_bundle import make_tiny_bundle

POLICY = AlertPolicy(0.5, 0.4, 0.0)

GOOD_TRUTH = {
    "a.mp4": {"frames": 16, "fps": 10, "anomalous": [[2, 5], [8, 16]], "source": "yt01"},
    "sub/b.mp4": {"frames": 16, "fps": 29.97, "anomalous": [], "synthetic": True},
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").directory


@pytest.fixture
def truth_file(tmp_path: Path) -> Path:
    return tmp_path / "ground_truth.json"


def assert_truth_or_refusal(path: Path) -> None:
    try:
        truths = load_truth(path)
    except TruthError as error:
        assert_sentence(error, path)
        return
    for name, truth in truths.items():
        assert (path.parent / name).is_relative_to(path.parent)
        assert ".." not in Path(name).parts
        assert truth.labels().sum() == sum(end - start for start, end in truth.anomalous)
        assert math.isfinite(truth.frames / truth.fps)


@few_or_many
def test_a_truth_with_spoiled_bytes_is_used_or_refused(truth_file: Path, examples: int) -> None:
    def law(content: bytes) -> None:
        truth_file.write_bytes(content)
        assert_truth_or_refusal(truth_file)

    holds(law, spoiled_bytes(json.dumps(GOOD_TRUTH).encode()), examples)


@few_or_many
def test_a_truth_of_any_structure_is_used_or_refused(truth_file: Path, examples: int) -> None:
    def law(content: Any) -> None:
        truth_file.write_text(json.dumps(content))
        assert_truth_or_refusal(truth_file)

    holds(law, spoiled_tree(GOOD_TRUTH), examples)


@few_or_many
def test_a_truth_with_any_intervals_is_used_or_refused(truth_file: Path, examples: int) -> None:
    numbers = st.integers(-3, 20) | st.floats(-3, 20) | odd_values
    intervals = st.lists(st.lists(numbers, min_size=1, max_size=3) | numbers, max_size=3)

    def law(anomalous: list[Any]) -> None:
        truth_file.write_text(json.dumps({"a.mp4": GOOD_TRUTH["a.mp4"] | {"anomalous": anomalous}}))
        assert_truth_or_refusal(truth_file)

    holds(law, intervals, examples)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a.mp4", "sub/../../a.mp4", "/etc/passwd", "./a.mp4", "a//b.mp4", "a/",
     "a\0.mp4", "\ud800.mp4"],
)  # fmt: skip
def test_a_name_that_is_no_plain_path_below_the_folder_is_refused(
    truth_file: Path, name: str
) -> None:
    truth_file.write_text(json.dumps({name: GOOD_TRUTH["a.mp4"]}))
    with pytest.raises(TruthError, match="no plain path below its folder") as caught:
        load_truth(truth_file)
    assert_sentence(caught.value, truth_file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a.mp4": {}, "a.mp4": {}}', "a.mp4 twice"),
        ('{"a.mp4": {"frames": 1, "frames": 2, "fps": 1, "anomalous": []}}', "frames twice"),
        ("[" * 9999 + "]" * 9999, "recursion"),
        ('{"a.mp4": ' * 9999 + "1" + "}" * 9999, "recursion"),
        ('{"a.mp4": {"frames": 1000000000000, "fps": 1, "anomalous": []}}', "must be 1 to"),
        ('{"a.mp4": {"frames": 9, "fps": 1e999, "anomalous": []}}', "fps"),
        ('{"a.mp4": {"frames": 9, "fps": true, "anomalous": []}}', "fps"),
        ('{"a.mp4": {"frames": 9, "fps": "25", "anomalous": []}}', "fps"),
        ('{"a.mp4": {"frames": 9, "fps": 25, "anomalous": {"12": 0}}}', "list of"),
    ],
)
def test_what_a_truth_may_not_say_is_named(truth_file: Path, content: str, said: str) -> None:
    truth_file.write_text(content, encoding="utf-8")
    with pytest.raises(TruthError, match=said) as caught:
        load_truth(truth_file)
    assert_sentence(caught.value, truth_file)


def test_a_truth_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, UNREADABLE, tmp_path / "nowhere"):
        with pytest.raises(TruthError, match="cannot be read") as caught:
            load_truth(place)
        assert_sentence(caught.value, place)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The clips that the good truth names, and links that lead nowhere."""
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    grey_clip(folder / "a.mp4", [26] * 16)
    shutil.copy(folder / "a.mp4", folder / "sub" / "b.mp4")
    (folder / "circle").symlink_to("circle")
    return folder


@pytest.mark.parametrize("examples", [25, pytest.param(200, marks=pytest.mark.long)])
def test_a_backtest_with_a_spoiled_truth_is_done_or_refused(
    folder: Path, pristine: Path, examples: int
) -> None:
    bundle = load_bundle(pristine)

    def law(content: Any) -> None:
        (folder / "ground_truth.json").write_text(json.dumps(content))
        try:
            report = backtest(folder, bundle, POLICY, Console(file=io.StringIO()))
        except TruthError as error:
            assert_sentence(error, folder / "ground_truth.json")
        else:
            json.dumps(report.to_json(), allow_nan=False)

    holds(law, spoiled_tree(GOOD_TRUTH), examples)


@pytest.mark.parametrize(
    "name", ["circle", "circle/a.mp4", "x" * 300, "a/" * 3000 + "b", "a.mp4/b"]
)
def test_a_truth_about_what_cannot_be_there_is_refused(
    folder: Path, pristine: Path, name: str
) -> None:
    (folder / "ground_truth.json").write_text(json.dumps({name: GOOD_TRUTH["a.mp4"]}))
    with pytest.raises(TruthError, match="which is not there") as caught:
        backtest(folder, load_bundle(pristine), POLICY, Console(file=io.StringIO()))
    assert_sentence(caught.value, folder)


@pytest.mark.parametrize(
    "content", ['{"circle": {}}', "[" * 9999, '{"../a.mp4": {}}', '{"a.mp4": {"frames": 1e999}}']
)
def test_a_backtest_refuses_a_spoiled_truth(
    folder: Path, pristine: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "ground_truth.json").write_text(content)
    code = main(["backtest", str(folder), "--bundle", str(pristine)])
    assert_refused(code, *capfd.readouterr())
