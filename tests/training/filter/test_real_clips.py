"""The filter on real CogVideoX output beside real surveillance footage."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import DATA
from server.bundle import DEFAULT_BUNDLE
from training.cli import main
from training.filter.findings import load_findings
from training.manifest import load_manifest


@pytest.mark.clips
@pytest.mark.long
def test_criteria_without_text_judge_what_a_real_generator_made(tmp_path: Path) -> None:
    made, out = str(DATA / "gv_vad_generated"), str(tmp_path)
    encoder = ("--encoder", str(DEFAULT_BUNDLE))
    assert main(["filter", made, "--real", str(DATA), *encoder, "--by-limits", "--out", out]) == 0
    found = load_findings(tmp_path / "verdicts.json")
    assert len(found.videos) == 8
    assert found.skipped == {}
    low, middle, high = found.real["motion"]
    assert 0 < low < middle < high < 0.1
    motion = {video.id: video.values["motion"] or 0 for video in found.videos}
    brawls = {name for name in motion if name.endswith(("gv002.mp4", "gv040.mp4"))}
    assert (
        min(motion[name] for name in brawls)
        > high
        > max(value for name, value in motion.items() if name not in brawls)
    )
    rows = load_manifest(tmp_path / "manifest.jsonl").rows
    discarded = {row.id for row in rows if row.synthetic and not row.kept}
    assert discarded == brawls
