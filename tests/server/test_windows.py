"""Windows: the grid, the gaps, and what never happens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.contract import Image, WindowSpec
from server.windows import SourceFrame, Window, WindowAssembler


def assemble(pts_seconds: list[float], spec: WindowSpec, *, finish: bool = True) -> list[Window]:
    """Windows of frames whose picture is their own index."""
    assembler = WindowAssembler[int](spec, lambda index: np.full((8, 8, 3), index % 251, np.uint8))
    windows: list[Window] = []
    for index, pts in enumerate(pts_seconds):
        windows += assembler.push(SourceFrame(index, index, pts, 100 + pts, 1000 + pts))
    return [*windows, *(assembler.finish() if finish else [])]


def pictures(window: Window) -> list[int]:
    return [int(image[0, 0, 0]) for image in window.images]


def times(count: int, fps: float) -> list[float]:
    return [index / fps for index in range(count)]


def test_native_window_k_is_frames_16k_to_16k_plus_16() -> None:
    windows = assemble(times(50, 25), WindowSpec(16, None))
    assert [(w.number, w.first_frame, w.end_frame) for w in windows] == [
        (0, 0, 16),
        (1, 16, 32),
        (2, 32, 48),
    ]
    assert pictures(windows[1]) == list(range(16, 32))


@pytest.mark.parametrize(
    ("sampled", "slots"), [(1, [8]), (2, [4, 12]), (4, [2, 6, 10, 14]), (16, list(range(16)))]
)
def test_sampled_frames_are_the_middles_of_equal_parts(sampled: int, slots: list[int]) -> None:
    assert pictures(assemble(times(16, 25), WindowSpec(sampled, None))[0]) == slots


def test_resampling_takes_the_frame_at_or_before_each_grid_point() -> None:
    window = assemble(times(41, 25), WindowSpec(16, 10.0))[0]
    assert pictures(window) == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37]
    assert (window.first_frame, window.end_frame) == (0, 38)
    assert window.end_pts_seconds == pytest.approx(37 / 25)


def test_times_rounded_to_milliseconds_hit_the_grid() -> None:
    rounded = [round(index / 30, 3) for index in range(60)]
    assert pictures(assemble(rounded, WindowSpec(16, 10.0))[0]) == list(range(0, 48, 3))


def test_a_window_closes_with_the_frame_that_reaches_its_last_grid_point() -> None:
    spec = WindowSpec(16, 10.0)
    assert len(assemble(times(16, 10), spec, finish=False)) == 1
    assert len(assemble(times(15, 10), spec, finish=False)) == 0


def test_a_clip_of_15_frames_has_no_window() -> None:
    assert assemble(times(15, 10), WindowSpec(16, 10.0)) == []
    assert assemble(times(15, 25), WindowSpec(16, None)) == []


def test_the_last_frame_of_a_clip_lasts_one_interval() -> None:
    # 8 frames at 5 fps last 1.6 s: just one window of 16 grid points.
    window = assemble(times(8, 5), WindowSpec(16, 10.0))[0]
    assert pictures(window) == [n for n in range(8) for _ in range(2)]


def test_a_gap_discards_the_open_window_and_restarts_the_numbering() -> None:
    before, after = times(20, 10), [5 + t for t in times(16, 10)]
    windows = assemble(before + after, WindowSpec(16, 10.0))
    assert [(w.number, w.first_frame, w.end_frame) for w in windows] == [(0, 0, 16), (0, 20, 36)]


def test_a_slow_camera_has_no_gap_at_four_of_its_intervals() -> None:
    slow = [3.0 * n for n in range(8)]
    # The first interval is over 2 s and counts as a gap; then the median adapts.
    windows = assemble(slow, WindowSpec(16, 10.0))
    assert windows[0].first_frame == 1
    assert len(windows) == int(7 * 3.0 * 10) // 16
    assert [w.number for w in windows] == list(range(len(windows)))


def test_a_small_step_back_drops_the_frame_and_a_large_one_is_a_gap() -> None:
    stutter = [0.0, 0.1, 0.05, 0.1, *[0.2 + t for t in times(14, 10)]]
    assert [w.number for w in assemble(stutter, WindowSpec(16, 10.0))] == [0]
    jump = times(20, 10) + times(16, 10)
    restarted = [100 + t for t in times(20, 10)] + times(16, 10)
    assert [w.number for w in assemble(restarted, WindowSpec(16, 10.0))] == [0, 0]
    assert len(assemble(jump, WindowSpec(16, 10.0))) == 1


@pytest.mark.parametrize("step_seconds", [3600, -3600, 0.9, -0.9, -0.2])
def test_a_clock_that_is_set_changes_no_windows_length(step_seconds: float) -> None:
    assembler = WindowAssembler[int](WindowSpec(1, 25.0), lambda _: np.zeros((8, 8, 3), np.uint8))
    windows: list[Window] = []
    for index, pts in enumerate(times(48, 25)):
        captured = 1000 + pts + (step_seconds if index >= 24 else 0)
        windows += assembler.push(SourceFrame(index, index, pts, 100 + pts, captured))
    assert [w.number for w in windows] == [0, 1, 2]
    assert [w.end_capture_seconds for w in windows][1:] == [
        pytest.approx(1000 + step_seconds + n / 25) for n in (31, 47)
    ]
    for window in windows:
        length_seconds = window.end_capture_seconds - window.start_capture_seconds
        assert 0 <= length_seconds < 15 / 25 + 1
        if abs(step_seconds) > 1:
            assert length_seconds == pytest.approx(15 / 25)


def test_frames_that_arrive_in_a_burst_keep_the_cameras_times() -> None:
    assembler = WindowAssembler[int](WindowSpec(1, 25.0), lambda _: np.zeros((8, 8, 3), np.uint8))
    frames = [
        SourceFrame(n, n, n / 25, 107.0 if n > 7 else 100.0, 1000 + n / 25) for n in range(16)
    ]
    [window] = [window for frame in frames for window in assembler.push(frame)]
    assert window.start_capture_seconds == pytest.approx(1000)


intervals = st.lists(
    st.one_of(st.floats(0.01, 0.5), st.floats(2.5, 60), st.floats(-3, 0)), min_size=1, max_size=200
)


@given(intervals, st.sampled_from([None, 8.0, 10.0, 25.0]))
def test_windows_never_span_a_gap_and_never_run_backwards(
    steps: list[float], fps: float | None
) -> None:
    pts = np.cumsum([0.0, *steps]).tolist()
    spec = WindowSpec(16, fps)
    windows = assemble(pts, spec)
    for window in windows:
        assert window.first_frame < window.end_frame
        assert window.start_pts_seconds <= window.end_pts_seconds
        assert window.images.shape == (16, 8, 8, 3)
    for earlier, later in pairwise(windows):
        assert later.number in (0, earlier.number + 1)
        assert later.first_frame >= earlier.first_frame
        if later.number == 0:
            assert later.first_frame >= earlier.end_frame


@given(st.integers(16, 300), st.sampled_from([10, 12.5, 15, 24, 25, 29.97, 30, 60]))
def test_steady_cameras_give_one_window_every_16_grid_points(count: int, fps: float) -> None:
    windows = assemble(times(count, fps), WindowSpec(16, 10.0))
    assert [w.number for w in windows] == list(range(len(windows)))
    assert abs(len(windows) - count / fps * 10 / 16) <= 1


def test_a_picture_that_stands_for_long_is_rendered_once_and_windows_come_one_by_one() -> None:
    rendered: list[int] = []

    def render(index: int) -> Image:
        rendered.append(index)
        return np.zeros((8, 8, 3), np.uint8)

    assembler = WindowAssembler[int](WindowSpec(4, 25.0), render)
    for index in range(2):  # the first interval is a gap: nothing is known of the rate yet
        assert list(assembler.push(SourceFrame(index, index, index * 60.0, 0.0, 0.0))) == []
    coming = assembler.push(SourceFrame(2, 2, 120.0, 0.0, 0.0))
    assert next(coming).number == 0
    # What was not asked for is not there: an hour of windows would fill the memory.
    assert [window.number for window in coming] == list(range(1, 60 * 25 // 16))
    assert rendered == [1]


def test_no_picture_stands_for_more_than_five_minutes() -> None:
    hours = [index * 3600.0 for index in range(10)]
    assert assemble(hours, WindowSpec(4, 25.0), finish=False) == []
    (last,) = {window.first_frame for window in assemble(hours, WindowSpec(4, 25.0))}
    assert last == 9
