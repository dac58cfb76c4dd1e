"""Ceilings: the formulas by hand and by their laws, and each measurement once for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bench.ceilings import (
    BATCHES,
    DecodeCost,
    EncodeCost,
    best_encode,
    ceiling_cameras,
    ceiling_windows_per_second,
    measure_decode,
    measure_encode,
    windows_per_second,
)
from server.bench.crew import BenchError, usable_cores
from server.bench.decoding import Sampler
from server.bundle import DEFAULT_BUNDLE
from server.contract import WindowSpec
from server.windows import SourceFrame, WindowAssembler
from tests.support.cameras import render_clip
from tests.support.tiny_bundle import make_tiny_bundle

SECONDS = 0.2

costs = st.floats(1e-6, 10.0)
rates = st.floats(0.1, 240.0)
cores = st.integers(1, 256)


def decoding(core_seconds: float) -> DecodeCost:
    return DecodeCost(core_seconds, frames=1, seconds=1.0)


def encoding(core_seconds: float) -> EncodeCost:
    return EncodeCost(core_seconds, batch=1, threads=1, windows=1, seconds=1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").directory


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "small.mp4", seconds=1, size=(64, 48))


def test_a_camera_of_a_thirtieth_of_a_core_fits_sixty_times_into_two() -> None:
    # 25 frames of 1 ms and 0.625 windows of 8 ms are 30 ms of every second.
    found = ceiling_cameras(2, 25, 0.625, decoding(0.001), encoding(0.008))
    assert found == pytest.approx(2 / 0.030)


def test_a_recorded_window_costs_its_frames_and_itself() -> None:
    # 25 / 0.625 = 40 frames of 1 ms and one window of 8 ms.
    found = ceiling_windows_per_second(2, 25, 0.625, decoding(0.001), encoding(0.008))
    assert found == pytest.approx(2 / 0.048)


@given(cores, rates, rates, costs, costs)
def test_both_ceilings_are_one_in_windows_and_in_cameras(
    count: int, fps: float, rate: float, decode: float, encode: float
) -> None:
    given = (count, fps, rate, decoding(decode), encoding(encode))
    assert ceiling_windows_per_second(*given) == pytest.approx(ceiling_cameras(*given) * rate)


@given(cores, rates, rates, costs, costs, st.floats(1.0, 10.0))
def test_a_ceiling_grows_with_cores_and_falls_with_costs(
    count: int, fps: float, rate: float, decode: float, encode: float, factor: float
) -> None:
    found = ceiling_cameras(count, fps, rate, decoding(decode), encoding(encode))
    assert ceiling_cameras(
        2 * count, fps, rate, decoding(decode), encoding(encode)
    ) == pytest.approx(2 * found)
    for dearer in (
        ceiling_cameras(count, fps, rate, decoding(decode * factor), encoding(encode)),
        ceiling_cameras(count, fps, rate, decoding(decode), encoding(encode * factor)),
    ):
        assert found / factor <= dearer * (1 + 1e-9)
        assert dearer <= found * (1 + 1e-9)


def test_windows_of_native_frames_follow_the_camera_others_the_bundle() -> None:
    assert windows_per_second(WindowSpec(16, fps=10.0), 25) == 0.625
    assert windows_per_second(WindowSpec(16, fps=None), 25) == 1.5625


@given(
    st.floats(10.0, 60.0),
    st.integers(1, 16),
    st.sampled_from([None, 10.0, 5.0]),
    st.integers(1, 200),
)
def test_as_many_frames_are_rendered_as_the_server_renders(
    fps: float, sampled: int, grid: float | None, frames: int
) -> None:
    window, rendered = WindowSpec(sampled, grid), []

    def render(picture: int) -> np.ndarray:
        rendered.append(picture)
        return np.zeros((2, 2, 3), np.uint8)

    assembler: WindowAssembler[int] = WindowAssembler(window, render)
    sampler, wanted = Sampler(window), 0
    for index in range(frames):
        seconds = index / fps
        wanted += sampler.wants(seconds)
        list(assembler.push(SourceFrame(index, index, seconds, 0.0, 0.0)))
    # The server knows which frame came last before a point only when the next one is there.
    assert len(rendered) <= wanted <= len(rendered) + 1


def test_a_clip_that_begins_again_is_sampled_as_before() -> None:
    sampler = Sampler(WindowSpec(16, 10.0))
    passes = [sum(sampler.wants(index / 25) for index in range(50)) for _ in range(2)]
    assert passes == [20, 20]


def test_decoding_is_measured_in_all_processes(clip: Path, tiny: Path) -> None:
    cost = measure_decode(clip, tiny, SECONDS, processes=2)
    assert cost.seconds >= SECONDS
    assert cost.frames > 25  # so the clip began again
    assert 0 < cost.frames * cost.core_seconds_per_frame <= 2 * cost.seconds * 1.05
    assert cost.frames_per_second == cost.frames / cost.seconds


def test_a_larger_picture_costs_more(clip: Path, tiny: Path, tmp_path: Path) -> None:
    large = render_clip(tmp_path / "large.mp4", seconds=1, size=(640, 480))
    cheap, dear = (measure_decode(one, tiny, SECONDS, 1) for one in (clip, large))
    # A hundred times the pixels; the smaller one costs its overhead.
    assert dear.core_seconds_per_frame > 3 * cheap.core_seconds_per_frame


def test_encoding_is_measured_with_all_cores_busy(tiny: Path) -> None:
    cost = measure_encode(tiny, SECONDS, batch=4, threads=1)
    assert (cost.batch, cost.threads) == (4, 1)
    assert cost.windows % 4 == 0
    busy = cost.windows * cost.core_seconds_per_window
    assert 0 < busy <= usable_cores() * cost.seconds * 1.05
    assert cost.windows_per_second == cost.windows / cost.seconds


@pytest.mark.long
def test_the_cheapest_way_is_one_of_those_tried() -> None:
    best = best_encode(DEFAULT_BUNDLE, 0.3)
    assert best.batch in BATCHES
    assert best.threads in {1, usable_cores()}
    again = measure_encode(DEFAULT_BUNDLE, 0.3, best.batch, best.threads)
    # Other programs' caches and clocks come between.
    assert again.core_seconds_per_window == pytest.approx(best.core_seconds_per_window, rel=1.0)


@pytest.mark.long
def test_batches_that_take_too_long_are_not_tried() -> None:
    assert best_encode(DEFAULT_BUNDLE, 1e-3).batch == 1


def test_what_cannot_be_measured_is_one_sentence(clip: Path, tiny: Path, tmp_path: Path) -> None:
    text, cut, broken = tmp_path / "text.mp4", tmp_path / "cut.mp4", tmp_path / "broken"
    text.write_text("no video")
    cut.write_bytes(clip.read_bytes()[:2000])
    make_tiny_bundle(broken)
    (broken / "encoder.onnx").write_bytes(b"no graph")
    refused: list[tuple[str, Callable[[], object]]] = [
        ("not a file", lambda: measure_decode(tmp_path / "none.mp4", tiny, SECONDS, 1)),
        ("not a video", lambda: measure_decode(text, tiny, SECONDS, 1)),
        ("not a video", lambda: measure_decode(cut, tiny, SECONDS, 1)),
        ("not a bundle", lambda: measure_decode(clip, tmp_path, SECONDS, 1)),
        ("does not match its manifest", lambda: measure_encode(broken, SECONDS, 1, 1)),
        ("does not match its manifest", lambda: best_encode(broken, SECONDS)),
        ("batch", lambda: measure_encode(tiny, SECONDS, 0, 1)),
        ("threads", lambda: measure_encode(tiny, SECONDS, 1, 0)),
    ]
    for words, measure in refused:
        with pytest.raises(BenchError, match=words) as raised:
            measure()
        assert "\n" not in str(raised.value)
