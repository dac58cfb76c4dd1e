"""Which windows are scored: every one is scored or told once, and motion is never left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.contract import WindowSpec
from server.sampler import WindowSampler
from server.sampling import (
    EVERY_WINDOW,
    MOST_NTH,
    EveryNth,
    OnMotion,
    Sampling,
    read_sampling,
    sampling_text,
)
from server.scoring import DropReason
from server.streams import SourceUrl, StreamConfig
from server.windows import SourceFrame, Window, WindowAssembler, WindowSpan

SIDE = 112
WINDOW_SECONDS = 1.6

RULES = st.one_of(
    st.just(EVERY_WINDOW),
    st.integers(2, MOST_NTH).map(EveryNth),
    st.integers(1_000, 3_600_000).map(lambda ms: OnMotion(ms / 1000)),
)


@dataclass
class Stream:
    """Frames in, and what became of each window out, as a decode worker does it."""

    sampler: WindowSampler
    rendered: int = 0
    fates: list[tuple[WindowSpan, DropReason | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.assembler = WindowAssembler[int](
            WindowSpec(2, 10.0), self.render, self.sampler.opens, self.pass_over
        )

    def pass_over(self, span: WindowSpan) -> None:
        self.fates.append((span, DropReason.THINNED))

    def render(self, level: int) -> np.ndarray:
        self.rendered += 1
        return np.full((16, 16, 3), level, np.uint8)

    def play(self, frames: int, first_seconds: float, level: Callable[[int], int]) -> None:
        for index in range(frames):
            pts = first_seconds + index / 10
            frame = SourceFrame(level(index), index, pts, 100 + pts, 1000 + pts)
            for window in self.assembler.push(frame):
                self.fates.append((window.span, self.sampler.judge(window)))

    def numbers(self, reason: DropReason | None) -> list[int]:
        return [span.number for span, fate in self.fates if fate is reason]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(RULES, st.integers(1, 120), st.sampled_from([0.1, 30.0]), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_every_window_is_scored_or_told_once_whatever_the_rules(
    parts: list[tuple[Sampling, int, float, bool]],
) -> None:
    stream, whole = Stream(WindowSampler(EVERY_WINDOW)), Stream(WindowSampler(EVERY_WINDOW))
    at_seconds = 0.0
    for rule, frames, pause_seconds, moving in parts:
        stream.sampler.sampling = rule
        swing = 50 if moving else 0
        for one in (stream, whole):
            one.play(frames, at_seconds, lambda index, swing=swing: 100 + swing * (index % 2))
        at_seconds += (frames - 1) / 10 + pause_seconds
    assert [span for span, _ in stream.fates] == [span for span, _ in whole.fates]
    assert whole.numbers(None) == [span.number for span, _ in whole.fates]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, MOST_NTH), st.integers(1, 90))
def test_of_n_windows_exactly_one_is_scored_and_rendered(n: int, windows: int) -> None:
    stream = Stream(WindowSampler(EveryNth(n)))
    stream.play(16 * windows, 0.0, lambda index: index % 251)
    assert stream.numbers(None) == list(range(0, windows, n))
    assert len(stream.numbers(DropReason.THINNED)) == windows - len(stream.numbers(None))
    assert stream.rendered == 2 * len(stream.numbers(None))


def test_after_a_gap_the_count_begins_anew() -> None:
    stream = Stream(WindowSampler(EveryNth(4)))
    stream.play(16 * 3, 0.0, lambda index: 0)
    stream.play(16 * 5, 60.0, lambda index: 0)
    assert stream.numbers(None) == [0, 0, 4]


@settings(max_examples=25, deadline=None)
@given(st.floats(WINDOW_SECONDS, 60.0))
def test_a_still_scene_is_scored_often_enough_and_no_more(still_seconds: float) -> None:
    stream = Stream(WindowSampler(OnMotion(still_seconds)))
    stream.play(16 * 80, 0.0, lambda index: 90)
    scored = stream.numbers(None)
    steps = np.diff(scored) * WINDOW_SECONDS
    assert steps.max(initial=0) <= still_seconds + 1e-6
    # After the first two, which a scene that was never seen takes, not a window too many.
    assert all(step + WINDOW_SECONDS > still_seconds - 1e-6 for step in steps[1:])


@dataclass
class Scene:
    """Windows of a textured picture under noise, with a block on it."""

    noise_levels: float
    grey_noise: bool
    seed: int
    frames: int = 4

    def __post_init__(self) -> None:
        self.dice = np.random.default_rng(self.seed)
        tiles = self.dice.uniform(60, 190, (7, 7, 1)).repeat(16, 0).repeat(16, 1)
        self.picture = np.broadcast_to(tiles, (SIDE, SIDE, 3))
        self.sampler = WindowSampler(OnMotion(3600.0))
        self.number = 0

    def judge(
        self,
        places: list[tuple[int, int]],
        contrast: float = 40.0,
        size: int = 8,
        light: Callable[[np.ndarray, int], np.ndarray] = lambda picture, frame: picture,
    ) -> DropReason | None:
        """The next window; one place (top, left) of the block for each frame."""
        images = []
        for frame, (top, left) in enumerate(places):
            picture = self.picture.copy()
            picture[top : top + size, left : left + size] += contrast
            picture = light(picture, self.number * self.frames + frame)
            shape = (SIDE, SIDE, 1 if self.grey_noise else 3)
            noisy = picture + self.dice.normal(0, self.noise_levels, shape)
            images.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        end = (self.number + 1) * WINDOW_SECONDS
        window = Window(self.number, np.stack(images), 0, 16, end - 1.5, end, 0.0, 1.5, 0.0)
        self.number += 1
        return self.sampler.judge(window)

    def settle(self, place: tuple[int, int] = (40, 40), windows: int = 4) -> None:
        """The block stands still at a place."""
        for _ in range(windows):
            self.judge([place] * self.frames)


PLACES = st.integers(8, SIDE - 32)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 5),
    st.booleans(),
    st.tuples(PLACES, PLACES),
    st.tuples(st.integers(-8, 8), st.integers(-8, 8)).filter(lambda by: max(map(abs, by)) >= 4),
    st.sampled_from([-40.0, 40.0]),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_a_block_of_8_pixels_that_moves_half_its_size_is_never_left_out(
    noise_levels: float,
    grey_noise: bool,
    place: tuple[int, int],
    by: tuple[int, int],
    contrast: float,
    from_frame: int,
    seed: int,
) -> None:
    scene = Scene(noise_levels, grey_noise, seed)
    for _ in range(4):
        scene.judge([place] * 4, contrast)
    moved = (place[0] + by[0], place[1] + by[1])
    places = [place] * from_frame + [moved] * (4 - from_frame)
    assert scene.judge(places, contrast) is None


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_in_a_calm_picture_a_single_pixel_is_motion(shift: int) -> None:
    scene = Scene(1.0, False, 1)
    scene.settle((44, 44))
    assert scene.judge([(44, 44)] * 3 + [(44, 44 + shift)]) is None


def test_a_bundle_of_one_frame_a_window_sees_motion_from_window_to_window() -> None:
    scene = Scene(2.0, True, 2, frames=1)
    scene.settle(windows=6)
    fates = [scene.judge([(40, 40 + 6 * max(0, step - 3))]) for step in range(8)]
    assert fates[:4] == [DropReason.STILL] * 4
    assert fates[4:] == [None] * 4


def test_what_creeps_is_seen_against_the_last_scored_window() -> None:
    scene = Scene(1.0, False, 3)
    scene.settle()
    # Half a level a window: no two frames that follow each other differ.
    fates = [scene.judge([(40, 40)] * 4, 40 + window / 2) for window in range(8)]
    assert fates[0] is DropReason.STILL
    assert None in fates


@pytest.mark.parametrize("noise_levels", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("grey_noise", [False, True])
def test_noise_alone_is_seldom_motion(noise_levels: float, grey_noise: bool) -> None:
    scene = Scene(noise_levels, grey_noise, 4, frames=16)
    scene.settle()
    fates = [scene.judge([(40, 40)] * 16) for _ in range(30)]
    assert fates.count(None) <= 3


@pytest.mark.parametrize(
    "light",
    [
        lambda picture, frame: picture + 6 * np.sin(2.1 * frame),
        lambda picture, frame: picture * (1 + 0.06 * np.sin(2.1 * frame)),
        lambda picture, frame: picture + 0.1 * frame,
        lambda picture, frame: picture * (0.8 + 0.002 * frame),
    ],
    ids=["flicker", "flickering gain", "dawn", "exposure"],
)
def test_light_that_changes_as_a_whole_is_no_motion(
    light: Callable[[np.ndarray, int], np.ndarray],
) -> None:
    scene = Scene(1.0, False, 5, frames=8)
    fates = [scene.judge([(40, 40)] * 8, light=light) for _ in range(14)]
    assert fates[2:].count(None) <= 2


def test_a_lamp_that_goes_on_is_motion_once() -> None:
    def light(picture: np.ndarray, frame: int) -> np.ndarray:
        lit = picture.copy()
        lit[:, :40] += 30 if frame >= 24 else 0
        return lit

    scene = Scene(2.0, False, 6)
    fates = [scene.judge([(60, 60)] * 4, light=light) for _ in range(14)]
    assert fates[6] is None
    # The window after it is scored too, and then the lamp belongs to the scene.
    assert fates[8:] == [DropReason.STILL] * 6


def test_sides_that_no_block_divides_are_watched_to_the_edge() -> None:
    sampler = WindowSampler(OnMotion(3600.0))

    def window(number: int, level: int) -> Window:
        images = np.full((2, 27, 37, 3), 100, np.uint8)
        images[1, 24:, 32:] += np.uint8(level)
        end = (number + 1) * WINDOW_SECONDS
        return Window(number, images, 0, 16, end - 1.5, end, 0.0, 1.5, 0.0)

    assert [sampler.judge(window(n, 0)) for n in range(3)] == [None, None, DropReason.STILL]
    assert sampler.judge(window(3, 20)) is None


@given(RULES)
def test_a_rule_is_read_as_it_is_written(rule: Sampling) -> None:
    assert read_sampling(sampling_text(rule)) == rule


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("often", "'often' is no sampling; give every, nth:N"),
        ("nth", "'nth' is no sampling"),
        ("nth:1", r"nth \(1\) must be 2 to 64"),
        ("nth:65", r"nth \(65\) must be 2 to 64"),
        ("nth:\u0664", "is no sampling"),
        ("every:2", "'every:2' is no sampling"),
        ("motion:", "'' is no length of time"),
        ("motion:0", r"still \(0 s\) must be 1 to 3600 s"),
        ("motion:2h", r"still \(7200 s\) must be 1 to 3600 s"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_sampling(text)


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_stream_checks_its_priority_and_how_it_may_be_thinned(priority: int) -> None:
    url = SourceUrl("rtsp://cam/a")
    with pytest.raises(ValueError, match=rf"priority \({priority}\) must be 0 to 9"):
        StreamConfig("door", url, priority=priority)
    with pytest.raises(ValueError, match="sampling_when_full must leave windows out"):
        StreamConfig("door", url, sampling_when_full=EVERY_WINDOW)
