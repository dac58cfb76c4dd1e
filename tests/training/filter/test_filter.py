"""gvvad-train filter: manifest, report, decisions by hand, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from server.bundle import DEFAULT_BUNDLE, file_sha256
from tests.support.clip_model import write_clip_model
from tests.support.clips import write_clip
from tests.support.footage import frames, make_footage
from tests.support.tiny_bundle import make_tiny_bundle
from training.cli import main
from training.filter.criteria import BY_NAME
from training.filter.findings import load_findings
from training.manifest import Row, load_manifest, write_manifest

BUNDLE = ("--encoder", str(DEFAULT_BUNDLE))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_footage(tmp_path_factory.mktemp("real"), sources=12)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of generated clips; one is a copy, one is frozen, one cannot be read."""
    folder = tmp_path_factory.mktemp("generated")
    rows = []
    for pair in range(4):
        for label in ("anomalous", "normal"):
            name, wild = f"{pair}-{label}", label == "anomalous"
            write_clip(folder / f"{name}.mp4", frames(50 + pair, 20, wild=wild), fps=10)
            content = {
                "id": name,
                "label": label,
                "source": "synthetic",
                "group": f"p{pair}",
                "pair_id": f"p{pair}",
                "video": f"{name}.mp4",
                "frames": 20,
                "description": f"A camera shows something {label} on square {pair}.",
            }
            rows.append(Row.model_validate(content))
    shutil.copy(folder / "0-normal.mp4", folder / "1-normal.mp4")
    write_clip(folder / "2-normal.mp4", [frames(52, 1, wild=False)[0]] * 20, fps=10)
    (folder / "3-anomalous.mp4").write_bytes(b"no video")
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def filtered(
    generated: Path, real: Path, out: Path, *more: str, encoder: Sequence[str] = BUNDLE
) -> int:
    given = [str(generated), "--real", str(real), "--out", str(out), "--workers", "1"]
    return main(["filter", *given, *encoder, *more])


def kept(out: Path) -> dict[str, bool | None]:
    return {row.id: row.kept for row in load_manifest(out / "manifest.jsonl").rows}


@pytest.fixture(scope="module")
def whole(generated: Path, real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept")
    assert filtered(generated, real, out) == 0
    return out


def test_the_decision_stands_in_the_manifest(whole: Path, generated: Path) -> None:
    before = load_manifest(generated / "manifest.jsonl").rows
    after = load_manifest(whole / "manifest.jsonl")
    assert [row.id for row in after.rows] == [row.id for row in before]
    assert [row.description for row in after.rows] == [row.description for row in before]
    for row in after.rows:
        assert after.file(str(row.video)).samefile(generated / f"{row.id}.mp4")
    chosen = kept(whole)
    assert sum(bool(k) for name, k in chosen.items() if name.endswith("normal")) == 2
    assert not (chosen["0-normal"] and chosen["1-normal"])  # one is a copy of the other
    assert chosen["2-normal"] is False  # frozen
    assert chosen["3-anomalous"] is False  # could not be read


def test_the_report_tells_every_criterion_and_shows_the_videos(whole: Path) -> None:
    text = (whole / "filter.md").read_text()
    for name in BY_NAME:
        assert f"| {name} |" in text or f"| **{name}** |" in text
    assert "near-duplicate of a kept one" in text
    assert "3-anomalous" in text
    for name in ("histograms", "kept", "discarded", "borderline"):
        assert f"({name}.png)" in text
        with Image.open(whole / f"{name}.png") as picture:
            assert picture.width > 300
            assert len(picture.getcolors(1 << 20) or ()) > 20  # something is drawn
    found = load_findings(whole / "verdicts.json")
    assert {v.id for v in found.verdicts} | set(found.skipped) == set(kept(whole))
    assert found.rule.criteria == ("consistency", "motion", "likeness", "duplicate")


@pytest.mark.long
def test_whoever_measures_and_whatever_is_at_rest_nothing_changes(
    whole: Path, generated: Path, real: Path, tmp_path: Path
) -> None:
    assert filtered(generated, real, tmp_path / "2", "--workers", "2") == 0
    verdicts = (whole / "verdicts.json").read_bytes()
    assert (tmp_path / "2" / "verdicts.json").read_bytes() == verdicts
    at_rest = {path: path.stat().st_mtime_ns for path in (tmp_path / "2" / "measured").iterdir()}
    broken = min(at_rest)
    broken.write_bytes(b"cut short")
    assert filtered(generated, real, tmp_path / "2") == 0
    assert (tmp_path / "2" / "verdicts.json").read_bytes() == verdicts
    for path, changed in at_rest.items():
        assert (path.stat().st_mtime_ns == changed) == (path != broken)


def test_a_person_edits_the_file_and_runs_it_again(
    generated: Path, real: Path, tmp_path: Path
) -> None:
    assert filtered(generated, real, tmp_path) == 0
    path, before = tmp_path / "overrides.yaml", kept(tmp_path)
    assert yaml.safe_load(path.read_text()) == {"keep": [], "discard": []}
    assert "#   " in path.read_text()
    wanted = next(name for name, k in before.items() if not k and name != "3-anomalous")
    spurned = next(name for name, k in before.items() if k)
    path.write_text(path.read_text().replace("keep: []", f"keep: [{wanted}]"))
    path.write_text(path.read_text().replace("discard: []", f"discard: [{spurned}]"))
    assert filtered(generated, real, tmp_path) == 0
    after = kept(tmp_path)
    assert after[wanted] is True
    assert after[spurned] is False
    again = yaml.safe_load(path.read_text())
    assert again == {"keep": [wanted], "discard": [spurned]}


@pytest.mark.long
def test_a_model_with_texts_adds_their_criteria(
    generated: Path, real: Path, tmp_path: Path
) -> None:
    model, weights = write_clip_model(tmp_path)
    encoder = ("--model", str(model), "--pretrained", str(weights))
    assert filtered(generated, real, tmp_path / "out", encoder=encoder) == 0
    found = load_findings(tmp_path / "out" / "verdicts.json")
    assert found.rule.criteria[:2] == ("prompt", "contrast")
    for video in found.videos:
        prompt = video.values["prompt"]
        assert prompt is not None
        assert -1 <= prompt <= 1
    # Its twin could not be read, so there is nothing to tell it from.
    assert {v.id for v in found.videos if v.values["contrast"] is None} == {"3-normal"}


@pytest.mark.long
def test_shares_limits_and_criteria_are_the_caller_s(
    generated: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--keep", "anomalous=1", "normal=0.25", "--criteria", "motion", "--json")
    assert filtered(generated, real, tmp_path, *more) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["videos"] == {
        "anomalous": {"kept": 3, "of": 3},
        "normal": {"kept": 1, "of": 4},
    }
    assert list(told["skipped"]) == ["3-anomalous"]
    limits = ("--by-limits", "--criteria", "motion", "--limit", "motion=1e-9:", "--json")
    assert filtered(generated, real, tmp_path, *limits) == 0
    assert json.loads(capsys.readouterr().out)["videos"]["normal"] == {"kept": 3, "of": 4}
    assert kept(tmp_path)["2-normal"] is False


@pytest.mark.long
def test_a_detector_is_asked_where_it_is_given(generated: Path, real: Path, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    assert filtered(generated, real, tmp_path / "out", "--detector", str(bundle.directory)) == 0
    found = load_findings(tmp_path / "out" / "verdicts.json")
    assert found.rule.criteria[-1] == "detector"
    for video in found.videos:
        agreement = video.values["detector"]
        assert agreement is not None
        assert 0 <= agreement <= 1


def test_a_detector_that_saw_a_generated_video_is_not_asked(
    generated: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [file_sha256(generated / "0-normal.mp4")]
    bundle = make_tiny_bundle(tmp_path / "bundle", clips=clips).directory
    assert filtered(generated, real, tmp_path / "out", "--detector", str(bundle)) == 2
    assert "was trained on '0-normal' and 1 other" in capsys.readouterr().err


def test_real_videos_that_are_marked_as_test_take_no_part(
    whole: Path, generated: Path, real: Path, tmp_path: Path
) -> None:
    truth_path = tmp_path / "real" / "scenes" / "ground_truth.json"
    shutil.copytree(real, tmp_path / "real")
    truth = json.loads(truth_path.read_text())
    moving = frames(77, 20, wild=True)
    write_clip(tmp_path / "real" / "scenes" / "test.mp4", [255 - i for i in moving], fps=10)
    truth["test.mp4"] = {
        "frames": 20, "fps": 10, "source": "test", "anomalous": [], "split": "test",
    }  # fmt: skip
    truth_path.write_text(json.dumps(truth))
    assert filtered(generated, tmp_path / "real", tmp_path / "out") == 0
    assert kept(tmp_path / "out") == kept(whole)
    expected = load_findings(whole / "verdicts.json").rule.limits
    assert load_findings(tmp_path / "out" / "verdicts.json").rule.limits == expected


REFUSED = {
    "an encoder and nothing else": (("--criteria", "prompt"), "a bundle has no text tower"),
    "no detector": (("--criteria", "detector"), "needs --detector BUNDLE"),
    "a share over one": (("--keep", "1.5"), "--keep '1.5' must be a share"),
    "a share of no label": (("--keep", "odd=0.5"), "--keep 'odd=0.5' must be a share"),
    "no number": (("--keep", "half"), "--keep 'half' must be a share"),
    "a limit of nothing": (("--limit", "speed=1:2"), "and a NAME of prompt, contrast"),
    "a limit without ends": (("--limit", "motion=:"), "must be NAME=LOW:HIGH"),
    "a limit the wrong way": (("--limit", "motion=2:1"), "must be NAME=LOW:HIGH"),
    "too fast": (("--fps", "1000"), "--fps (1000) must be 0.5 to 60 Hz"),
    "no such overrides": (("--overrides", "nowhere.yaml"), "nowhere.yaml cannot be read"),
}


@pytest.mark.parametrize(("more", "told"), REFUSED.values(), ids=REFUSED)
def test_a_wish_that_cannot_be_met_is_told_in_a_sentence(
    generated: Path,
    real: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    told: str,
) -> None:
    assert filtered(generated, real, tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("keep: [nobody]", "'nobody' is no generated video of this manifest"),
        ("keep: [0-normal]\ndiscard: [0-normal]", "'0-normal' is to be kept and discarded"),
        ("kept: []", "kept: Extra inputs are not permitted"),
    ],
)
def test_overrides_that_contradict_are_refused(
    generated: Path,
    real: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str,
    told: str,
) -> None:
    (tmp_path / "overrides.yaml").write_text(content)
    assert filtered(generated, real, tmp_path) == 2
    assert told in capsys.readouterr().err
    assert (tmp_path / "overrides.yaml").read_text() == content


def test_a_manifest_without_generated_videos_is_refused(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert filtered(real, real, tmp_path) == 2
    assert 'no row with "source": "synthetic"' in capsys.readouterr().err
