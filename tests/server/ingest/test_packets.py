"""The ring of recent packets, and what makes a clip of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ingest import packets
from server.ingest.bitstream import parameter_sets
from server.ingest.clip import ClipError, ClipWriter, Times
from server.ingest.packets import ClipFormat, PacketRing, Unit
from server.pushed import Codec
from tests.support.cameras import render_clip
from tests.support.disk import largest_file
from tests.support.evidence import played
from tests.support.pushing import units_to_push


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("packets") / "a.mp4", seconds=3.0)


def read(clip: Path) -> tuple[ClipFormat, list[Unit]]:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        format = ClipFormat.of(stream)
        return format, [
            Unit(p, p.size, p.is_keyframe, p.pts, p.dts, float(p.pts * p.time_base))
            for p in container.demux(stream)
            if p.size and p.pts is not None
        ]


@pytest.fixture(scope="module")
def format(clip: Path) -> ClipFormat:
    return read(clip)[0]


def bare(seconds: float, size: int, *, is_key: bool) -> Unit:
    return Unit(b"x", size, is_key, round(seconds * 1000), None, seconds)


groups = st.lists(
    st.lists(st.tuples(st.floats(0.01, 2.0), st.integers(1, 10**6)), min_size=1, max_size=6),
    min_size=1,
    max_size=12,
)


def units_of(made: Iterable[list[tuple[float, int]]]) -> list[Unit]:
    """Groups of (seconds to the next, bytes) as packets, each group after a key frame."""
    found, at = [], 0.0
    for group in made:
        for place, (step, size) in enumerate(group):
            found.append(bare(at, size, is_key=place == 0))
            at += step
    return found


@given(groups, st.floats(0, 10), st.none() | st.floats(0, 20))
def test_a_ring_begins_at_a_key_frame_and_has_all_that_was_asked(
    format: ClipFormat, made: list[list[tuple[float, int]]], keep: float, held: float | None
) -> None:
    ring = PacketRing(replace(format, time_base=Fraction(1, 1000)), keep)
    taken: list[Unit] = []
    for unit in units_of(made):
        ring.add(unit, held)
        taken.append(unit)
        kept = ring.since(float("-inf"))
        assert kept[0].is_key
        assert kept == taken[len(taken) - len(kept) :]
        assert ring.size_bytes == sum(one.size for one in kept)
        wanted = (
            unit.capture_seconds - keep if held is None else min(held, unit.capture_seconds - keep)
        )
        assert len(kept) == len(taken) or kept[0].capture_seconds <= wanted
        # No more than that: the second group begins within what was asked for.
        keys = [one.capture_seconds for one in kept if one.is_key]
        assert len(keys) == 1 or keys[1] > wanted


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 9))
def test_a_ring_never_holds_more_than_its_bytes(
    format: ClipFormat, sizes: list[int], group: int
) -> None:
    ring = PacketRing(format, 1e9)
    for place, megabytes in enumerate(sizes):
        ring.add(bare(place, megabytes * 1_000_000, is_key=place % group == 0), 0.0)
        assert ring.size_bytes <= packets.RING_BYTES
        kept = ring.since(0.0)
        assert not kept or kept[0].is_key


def test_times_that_jump_are_another_recordings(format: ClipFormat) -> None:
    ring = PacketRing(replace(format, time_base=Fraction(1, 1000)), 5.0)
    ring.add(bare(100.0, 1, is_key=True), None)
    assert ring.follows(bare(100.04, 1, is_key=False))
    assert ring.follows(bare(99.9, 1, is_key=False))  # a B-frame
    assert not ring.follows(bare(90.0, 1, is_key=False))
    assert not ring.follows(bare(200.0, 1, is_key=False))


def test_a_key_frame_with_other_parameters_begins_another_clip(tmp_path: Path) -> None:
    small = units_to_push(render_clip(tmp_path / "s.mp4", seconds=0.2))[0].data
    large = units_to_push(render_clip(tmp_path / "l.mp4", seconds=0.2, size=(320, 192)))[0].data
    format = ClipFormat.of_push(Codec.H264, small, Fraction(1, 1000))
    first = format.seen_in(replace(bare(0, 1, is_key=True), data=small), (160, 96))
    same = first.seen_in(replace(bare(1, 1, is_key=True), data=small), (160, 96))
    other = first.seen_in(replace(bare(2, 1, is_key=True), data=large), (320, 192))
    assert same is first
    assert (other is first, other.size) == (False, (320, 192))
    assert other.extradata == parameter_sets(Codec.H264, large) != first.extradata


@pytest.mark.parametrize(("codec", "name"), [("libx264", Codec.H264), ("libx265", Codec.H265)])
def test_parameter_sets_are_those_that_ffmpeg_finds(
    tmp_path: Path, codec: str, name: Codec
) -> None:
    clip = render_clip(tmp_path / "a.mp4", seconds=0.4, codec=codec)
    first = units_to_push(clip)[0].data
    format = ClipFormat.of_push(name, first, Fraction(1, 1000))
    assert format.extradata is not None
    found, known = (
        [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")]
        for data in (parameter_sets(name, first), format.extradata)
    )
    assert found == known != [b""]
    assert parameter_sets(name, units_to_push(clip)[1].data) == b""


@given(st.permutations(range(12)), st.booleans())
def test_decoding_times_rise_and_never_lie_after_presentation(order: list[int], told: bool) -> None:
    times, last = Times(reorder=4), None
    for place, number in enumerate(order):
        pts, dts = times.place(1000 * number, 1000 * place - 5000 if told else None)
        assert dts <= pts
        assert last is None or dts > last
        last = dts


@pytest.mark.parametrize(
    ("depth", "group"), [(0, [1]), (1, [2, 1]), (1, [4, 1, 2, 3]), (2, [4, 2, 1, 3])]
)
def test_times_of_presentation_stay_as_they_are(depth: int, group: list[int]) -> None:
    """Whole groups of a picture and those shown before it, after the first key frame."""
    order = [0, *(begin + place for begin in range(0, 40, len(group)) for place in group)]
    times = Times(depth)
    placed = [times.place(90 * number, None) for number in order]
    assert [pts for pts, _ in placed] == [90 * number for number in order]
    assert all(dts < after for (_, dts), (_, after) in itertools.pairwise(placed))


def test_a_clip_ends_before_it_is_too_large(clip: Path, tmp_path: Path) -> None:
    format, units = read(clip)
    whole = sum(unit.size for unit in units)
    writer = ClipWriter(tmp_path / "kept.mp4", format, whole // 2)
    writer.add(units)
    made = writer.finish()
    pictures = played(tmp_path / "kept.mp4")
    assert 0 < len(pictures) < len(units)
    assert made.end_seconds == units[len(pictures) - 1].capture_seconds
    assert made.size_bytes == (tmp_path / "kept.mp4").stat().st_size


@pytest.mark.parametrize("limit", [0, 100, 2_000, 6_000])
def test_a_full_disk_leaves_nothing_wherever_it_fills_up(
    clip: Path, tmp_path: Path, limit: int
) -> None:
    format, units = read(clip)
    writer = ClipWriter(tmp_path / "kept.mp4", format, 10**9)
    with largest_file(limit):
        writer.add(units)
        with pytest.raises(ClipError, match="File too large"):
            writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_is_given_up_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    format, units = read(clip)
    writer = ClipWriter(tmp_path / "kept.mp4", format, 10**9)
    writer.add(units[:30])
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_clip_without_a_picture_is_none(format: ClipFormat, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no key frame"):
        ClipWriter(tmp_path / "kept.mp4", format, 10**9).finish()
