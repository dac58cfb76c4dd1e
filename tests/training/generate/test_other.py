"""Another pipeline of diffusers needs a file, and no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_cogvideox import tiny_backend
from tests.training.generate.conftest import Write, arguments, decoded, refused
from training.cli import main
from training.manifest import load_manifest

LTX = {"pipeline": "LTXPipeline", "frame_step": 4, "size_step": 32, "tiling": False}


def test_another_family_makes_videos_by_its_file_alone(
    descriptions: Write, other: Path, tmp_path: Path
) -> None:
    given = arguments(descriptions(2), other, tmp_path / "out")
    tiny_backend(tmp_path, **LTX, arguments={"guidance_rescale": 0.5})
    assert main(given) == 0
    made = load_manifest(tmp_path / "out" / "manifest.jsonl")
    shown = [decoded(made.file(str(row.video))) for row in made.rows]
    assert [video.shape for video in shown] == [(9, 64, 96, 3)] * 2
    assert abs(shown[0] - shown[1]).mean() > 1
    assert all(row.generation and row.generation.pipeline == "LTXPipeline" for row in made.rows)
    assert all(row.generation and row.generation.arguments for row in made.rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arguments": {"use_dynamic_cfg": True}}, "LTXPipeline takes no use_dynamic_cfg"),
        ({"pipeline": "CogVideoXPipeline"}, "are for LTXPipeline, backend tiny is a CogVideoXP"),
    ],
)
def test_what_another_family_does_not_know_is_refused(
    changes: dict[str, object],
    said: str,
    descriptions: Write,
    other: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments(descriptions(1), other, tmp_path / "out")
    tiny_backend(tmp_path, **LTX | changes)
    assert said in refused(given, capsys)
