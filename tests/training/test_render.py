"""Extraction: windows as served, resumed clip by clip, corrupt clips skipped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from server.contract import WindowSpec
from server.ingest.video import file_windows
from server.preprocess import PreprocessSpec
from tests.support.clips import write_clip
from tests.support.footage import frames, make_footage
from training.clips import TrainingError, find_clips
from training.render import Extraction, read_extraction, read_frames, render

SMALL = PreprocessSpec(24, 32, "squash", "area", "bt601", "declared")
SPEC = WindowSpec(16, 10.0)


def extracted(data: Path, folder: Path, preprocess: PreprocessSpec = SMALL) -> Extraction:
    return render(find_clips(data), data, folder, preprocess)


@pytest.mark.parametrize("fps", [10, 25])
def test_windows_from_rest_are_those_that_the_server_cuts(tmp_path: Path, fps: int) -> None:
    clip = write_clip(tmp_path / "a.mp4", frames(1, 4 * fps, wild=True), fps=fps)
    served = list(file_windows(clip, SPEC, SMALL))
    found = read_frames(clip, SMALL).windows(SPEC)
    assert len(found) == len(served) == 2
    for ours, theirs in zip(found, served, strict=True):
        np.testing.assert_array_equal(ours.images, theirs.images)
        assert (ours.first_frame, ours.end_frame) == (theirs.first_frame, theirs.end_frame)


def test_a_late_start_begins_later_in_the_clip(tmp_path: Path) -> None:
    clip = read_frames(write_clip(tmp_path / "a.mp4", frames(1, 20, wild=False)), SMALL)
    assert [w.first_frame for w in clip.windows(SPEC, 0.3)] == [3]
    assert clip.windows(SPEC, 0.6) == []


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = extracted(make_footage(tmp_path / "data", 1), tmp_path / "out")
    found = read_extraction(tmp_path / "out")
    assert found == written
    assert found.manifest_sha256() == written.manifest_sha256()
    assert found.frames(found.clips[0]).images.shape == (20, 24, 32, 3)
    assert found.mates == {"scenes/wild0.mp4": ("scenes/calm0.mp4",)}


def test_a_second_run_keeps_what_is_there(tmp_path: Path) -> None:
    data = make_footage(tmp_path / "data", 2)
    first = extracted(data, tmp_path / "out")
    kept, lost = (tmp_path / "out" / str(first.clips[i].file) for i in (0, 1))
    os.utime(kept, (1, 1))
    lost.unlink()
    assert extracted(data, tmp_path / "out") == first
    assert kept.stat().st_mtime == 1
    assert lost.is_file()


def test_another_size_or_another_file_is_extracted_anew(tmp_path: Path) -> None:
    data = make_footage(tmp_path / "data", 1)
    first = extracted(data, tmp_path / "out")
    other_size = extracted(
        data, tmp_path / "out", PreprocessSpec(32, 32, "squash", "area", "bt601", "declared")
    )
    write_clip(data / "scenes" / "calm0.mp4", frames(9, 20, wild=False))
    other_file = extracted(data, tmp_path / "out")
    assert len({e.clips[0].file for e in (first, other_size, other_file)}) == 3
    assert len({e.manifest_sha256() for e in (first, other_size, other_file)}) == 3


def test_a_corrupt_and_a_missing_clip_are_skipped_with_their_reason(tmp_path: Path) -> None:
    data = make_footage(tmp_path / "data", 2)
    (data / "scenes" / "calm0.mp4").write_bytes(b"no video at all")
    (data / "scenes" / "wild1.mp4").unlink()
    extracted(data, tmp_path / "out")
    found = read_extraction(tmp_path / "out")
    skipped = {s.clip.name: s.skipped for s in found.clips if s.skipped}
    assert set(skipped) == {"scenes/calm0.mp4", "scenes/wild1.mp4"}
    assert "not a video" in skipped["scenes/calm0.mp4"]
    assert "is not there" in skipped["scenes/wild1.mp4"]
    assert len(found.usable) == 2


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    data = make_footage(tmp_path / "data", 1)
    for clip in (data / "scenes").glob("*.mp4"):
        clip.write_bytes(b"")
    with pytest.raises(TrainingError, match="none of the 2 clips"):
        extracted(data, tmp_path / "out")


def test_a_folder_without_extraction_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="run gvvad-train render"):
        read_extraction(tmp_path)
    (tmp_path / "windows.json").write_text("{}")
    with pytest.raises(TrainingError, match="render again"):
        read_extraction(tmp_path)


@pytest.mark.clips
def test_real_clips_are_extracted(tmp_path: Path) -> None:
    data = Path(os.environ.get("GVVAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not data.is_dir():
        pytest.skip(f"no clips in {data}")
    chosen = [clip for clip in find_clips(data) if clip.source == "yt27"]
    found = render(chosen, data, tmp_path, SMALL)
    assert {stored.clip.anomalous for stored in found.usable} == {True, False}
    for stored in found.usable:
        assert len(found.frames(stored).images) == stored.clip.truth.frames
