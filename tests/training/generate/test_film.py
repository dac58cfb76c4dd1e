"""Frames to files and back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.training.generate.conftest import decoded
from training.clips import TrainingError
from training.generate.film import Note, encode, read_film, write_whole
from training.generate.generator import VideoError, images_of
from training.manifest import Generation

GENERATION = Generation(
    backend="b",
    pipeline="P",
    model="m",
    weights_sha256="0" * 64,
    dtype="fp16",
    steps=3,
    guidance=6,
    negative_prompt='"ü\n',
    frames=9,
    fps=8,
    height=64,
    width=96,
    diffusers="1",
)


def note(**changes: object) -> Note:
    known = {"id": "a", "description": "a man; é = 'x'\n", "seed": 2**63 - 1}
    return Note.model_validate({**known, "generation": GENERATION, **changes})


def gradient(frames: int = 9) -> np.ndarray:
    """(F, 64, 96, 3): red grows to the right, green downwards, blue with time."""
    time, down, right = np.mgrid[0:frames, 0:64, 0:96]
    return np.stack([right * 2, down * 3, time * 20], -1).astype(np.uint8)


def test_a_file_tells_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    content = encode(gradient(), note())
    write_whole(path, content, ".a")
    film = read_film(path)
    assert film.note == note()
    assert (film.frames, film.size) == (9, len(content))
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_what_is_decoded_looks_like_what_was_encoded(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(encode(gradient(), note()))
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 8)
    shown = decoded(tmp_path / "a.mp4")
    assert shown.shape == (9, 64, 96, 3)
    assert np.abs(shown - gradient()).mean() < 4


@pytest.mark.parametrize("size", [(64, 96), (96, 160)])
def test_the_same_frames_give_the_same_bytes(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    height, width = size
    blocks = random.normal(128, 60, (9, height // 8, width // 8, 3)).cumsum(0) / 2
    fine = random.normal(0, 10, (9, height, width, 3))
    images = (blocks.repeat(8, 1).repeat(8, 2) + fine).clip(0, 255).astype(np.uint8)
    made, litter = set(), []
    for _ in range(25):
        # An encoder that reads memory beside its own finds something else there each time.
        litter = [random.bytes(int(size)) for size in random.integers(1, 200_000, 20)]
        made.add(encode(images, note()))
    assert len(litter) == 20
    assert len(made) == 1
    assert encode(images, note(seed=1)) not in made


def test_a_rate_that_is_no_whole_number_is_kept(tmp_path: Path) -> None:
    generation = GENERATION.model_copy(update={"fps": 29.97})
    (tmp_path / "a.mp4").write_bytes(encode(gradient(), note(generation=generation)))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(29.97, abs=1e-3)


def test_a_file_that_tells_nothing_is_refused(tmp_path: Path) -> None:
    whole = encode(gradient(), note())
    for content in (
        b"",
        b"x" * 100,
        whole[: len(whole) // 2],
        whole.replace(b"weights", b"wights"),
    ):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(TrainingError, match=r"a\.mp4 was not made by generate, or is broken"):
            read_film(tmp_path / "a.mp4")


def test_a_file_that_cannot_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(OSError, match=r"a\.mp4"):
        write_whole(tmp_path / "a.mp4", b"x", ".a")
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.full((9, 8, 8, 3), np.nan), "not finite numbers"),
        (np.full((9, 8, 8, 3), np.inf), "not finite numbers"),
        (np.zeros((9, 8, 8, 3)), "of one colour"),
        (np.full((9, 8, 8, 3), (0.2, 0.4, 7.0)), "of one colour"),
        (np.zeros((9, 8, 8)), r"must be \(F, H, W, 3\), got \(9, 8, 8\)"),
    ],
)
def test_frames_without_pictures_are_no_video(frames: np.ndarray, said: str) -> None:
    with pytest.raises(VideoError, match=said):
        images_of(frames)


def test_numbers_become_bytes_to_the_nearest() -> None:
    frames = np.zeros((1, 1, 4, 3), np.float32)
    frames[0, 0, :, 0] = (-1, 0.4999, 1 / 255, 2)
    assert images_of(frames)[0, 0, :, 0].tolist() == [0, 127, 1, 255]
