"""gvvad-train describe with the grammar, as it is called."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.taxonomies import CLASSES, LOCATIONS, write_small
from training.cli import main
from training.manifest import Row, load_manifest, seed_of, write_manifest


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path / "few.yaml")


def command(small: Path, out: Path, *more: str) -> list[str]:
    given = ["describe", "--count", "40", "--seed", "2", "--taxonomy", str(small)]
    return [*given, "--out", str(out), *more]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gvvad-train: ")
    return said


def test_describe_writes_pairs_a_report_and_its_picture(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "rows.jsonl"
    assert main(command(small, out)) == 0
    said = capsys.readouterr().out
    assert f"classes        {len(CLASSES)} of {len(CLASSES)}, 5 to 5 pairs each" in said
    assert said.splitlines()[-1].startswith(f"40 descriptions in {out}, report in ")
    rows = load_manifest(out).rows
    assert [row.label for row in rows] == ["anomalous", "normal"] * 20
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        assert (one.id, two.id) == (f"{one.pair_id}-anomalous", f"{one.pair_id}-normal")
        assert one.group == two.group == one.pair_id == two.pair_id
        assert (one.class_name in CLASSES, two.class_name) == (True, "")
    assert all(row.synthetic and row.seed == seed_of(row.id) for row in rows)
    assert all((row.dataset, row.video) == ("generated", None) for row in rows)
    report = (out.parent / "rows.coverage.md").read_text()
    assert "| near-duplicate | " in report
    assert all(f"| {name} | " in report for name in (*CLASSES, *LOCATIONS))
    assert "(rows.coverage.png)" in report
    assert (out.parent / "rows.coverage.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(
    small: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.jsonl"
    assert main(command(small, out)) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.glob("a.*")}
    assert len(first) == 3
    assert main(command(small, out)) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("a.*")} == first
    assert main(command(small, out, "--seed", "3")) == 0
    assert out.read_bytes() != first["a.jsonl"]


def test_describe_prints_json(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    assert main(command(small, out, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["manifest"], found["rows"]) == (str(out), 40)
    assert found["coverage"]["classes"] == dict.fromkeys(sorted(CLASSES), 5)
    assert sum(found["coverage"]["viewpoints"].values()) == 20
    assert set(found["rejected"].values()) == {0}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "7"], "--count (7) must be an even number, 2 to 100000"),
        (["--count", "0"], "--count (0) must be an even number"),
        (["--count", "100002"], "--count (100002) must be an even number"),
        (["--seed", "-1"], "--seed (-1) must be 0 or more"),
        (["--max-tokens", "3"], "--max-tokens (3) must be 16 to 4096"),
        (["--max-similarity", "1"], "--max-similarity (1) must be at least 0.1 and under 1"),
        (["--max-tokens", "20"], "pair 1 ("),
        (["--tokenizer", "gone"], "--tokenizer gone is no folder"),
        (["--taxonomy", "gone.yaml"], "taxonomy gone.yaml cannot be read as YAML"),
        (["--out", "rows.json"], "--out (rows.json) must end in .jsonl"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    arguments: list[str],
    said: str,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said in refused(command(small, tmp_path / "a.jsonl", *arguments), capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["few.yaml"]


def test_a_pair_that_never_passes_says_which_gates_refused_it(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    said = refused(command(small, out, "--max-tokens", "20"), capsys)
    assert "was refused 20 times (length 20; the last: " in said
    assert "try another --seed, fewer descriptions or wider limits" in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            Row(id="v", label="normal", source="synthetic", group="g", video="v.mp4"),
            "holds 'v', which is more than a description",
        ),
        (Row(id="real", label="normal", group="g"), "holds 'real', which is more"),
        (None, "--out is there and no manifest"),
    ],
)
def test_a_file_with_more_than_descriptions_is_left_alone(
    row: Row | None,
    said: str,
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text("Dear diary\n")
    if row is not None:
        write_manifest(out, [row])
    before = out.read_bytes()
    assert said in refused(command(small, out), capsys)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("datasketch", []),
        ("openai", ["--writer", "openai", "--model", "m", "--base-url", "http://x"]),
    ],
)
def test_a_missing_package_is_told_with_its_remedy(
    package: str,
    arguments: list[str],
    small: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(command(small, tmp_path / "a.jsonl", *arguments), capsys)
    assert said.startswith(f"gvvad-train: {package}, ")
    assert "pip install 'gvvad[synthetic]'" in said
