"""What the server reads, and what it refuses in one sentence.

`CODECS` and `SHAPES` are the source of truth of what is supported: each row is
encoded, read by the server's own path and compared with what was drawn, and the
table in README is held to list exactly these rows.
"""

from __future__ import annotations

import os
import re
import statistics
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, cycle, islice, pairwise
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from server.contract import WINDOW_FRAMES, Image, WindowSpec
from server.ingest.access import AccessPolicy
from server.ingest.video import decode, file_windows, open_file, video_stream
from server.preprocess import PreprocessSpec, View
from server.streams import Reason, SourceError, SourceUrl
from server.windows import Window
from tests.support.clips import Encoding, write_timed_clip

README = Path(__file__).parents[3] / "README.md"
WINDOW = WindowSpec(sampled_frames=4, fps=10.0)
SMALL = PreprocessSpec(32, 32, "squash", "area", "bt601", "declared")
CLOCK = Fraction(1, 12000)  # every time below is a multiple of it

RED, GREEN, BLUE = (200, 40, 40), (40, 160, 40), (40, 40, 200)
LUMA = np.array([0.299, 0.587, 0.114])
# Lossy coding of flat colours stays well below; the levels that tell frames apart lie 28 apart.
TOLERANCE = 12


def at_rate(fps: int, frames: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(index, fps) for index in range(frames))


def at_varying_rate() -> tuple[Fraction, ...]:
    steps = (Fraction(milliseconds, 1000) for milliseconds in cycle((20, 350, 40, 125, 65)))
    return tuple(accumulate(islice(steps, 29), initial=Fraction(0)))


def whatever_it_is(_: av.VideoFrame) -> bool:
    return True


@dataclass(frozen=True)
class Source:
    """A row of the table: what is read, how, and a clip of it.

    Attributes:
        what: the row's name in README.
        how: the row's remark in README.
        decoder: FFmpeg's name of the codec.
        size: (width, height) in pixels.
        times_seconds: of the frames.
        is_so: whether a decoded frame is what the row says.
    """

    what: str
    how: str
    encoding: Encoding = field(default_factory=Encoding)
    decoder: str = "h264"
    size: tuple[int, int] = (64, 48)
    times_seconds: tuple[Fraction, ...] = at_rate(10, 32)
    is_so: Callable[[av.VideoFrame], bool] = whatever_it_is


QUIET = {"x265-params": "log-level=none"}
CODECS = (
    Source("H.264", "codec"),
    Source("H.265", "codec", Encoding("libx265", options=QUIET), "hevc"),
    Source("MJPEG", "codec", Encoding("mjpeg", "yuvj420p"), "mjpeg"),
    Source("MPEG-4 part 2", "codec", Encoding("mpeg4"), "mpeg4"),
    Source("AV1", "codec", Encoding("libsvtav1", options={"preset": "12"}), "libdav1d"),
    Source("VP9", "codec", Encoding("libvpx-vp9", options={"cpu-used": "8"}), "vp9"),
)
SHAPES = (
    Source("16x16", "smallest size tried", size=(16, 16)),
    Source(
        "7680x4320",
        "largest size tried",
        Encoding(options={"preset": "ultrafast"}),
        size=(7680, 4320),
        times_seconds=at_rate(1, 2),
    ),
    Source("odd sizes", "such as 175x97", Encoding("mpeg4"), "mpeg4", size=(175, 97)),
    Source(
        "variable frame rate",
        "placed by the times of the frames, never by the declared rate",
        times_seconds=at_varying_rate(),
    ),
    Source("1 fps", "each frame stands until the next", times_seconds=at_rate(1, 5)),
    Source("120 fps", "thinned to the bundle's rate", times_seconds=at_rate(120, 400)),
    Source(
        "interlaced",
        "both fields of a frame as one picture, not deinterlaced",
        Encoding(options={"flags": "+ildct+ilme"}),
        is_so=lambda frame: frame.interlaced_frame,
    ),
    Source(
        "rotated",
        "turned or mirrored as the file says, so that the picture is upright",
        Encoding(turn_degrees=90),
        is_so=lambda frame: frame.rotation == 90,
    ),
    Source(
        "10-bit",
        "brought to 8 bits",
        Encoding("libx265", "yuv420p10le", QUIET),
        "hevc",
        is_so=lambda frame: frame.format.components[0].bits == 10,
    ),
    Source(
        "greyscale",
        "three equal channels",
        Encoding("libx265", "gray", QUIET),
        "hevc",
        is_so=lambda frame: frame.format.name == "gray",
    ),
)


def level(index: int) -> int:
    """Grey of the lower right quarter in frame `index`: it tells neighbours apart."""
    return 30 + 28 * (index % 7)


def picture(index: int, size: tuple[int, int]) -> Image:
    """Four quarters: red and green above, blue and the frame's grey below."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = level(index)
    return image


def encode(path: Path, source: Source) -> Path:
    pictures = (
        as_stored(picture(index, source.size), source.encoding)
        for index in range(len(source.times_seconds))
    )
    timed = zip(source.times_seconds, pictures, strict=True)
    return write_timed_clip(path, timed, source.encoding, CLOCK)


def as_stored(upright: Image, encoding: Encoding) -> Image:
    """The picture that comes upright by what the file asks for."""
    seen = upright[:, ::-1] if encoding.mirrored else upright
    return np.rot90(seen, -encoding.turn_degrees // 90)


def expected_slots(times_seconds: tuple[Fraction, ...]) -> list[int]:
    """The frame that shows at each tenth of a second; the last one stands one interval more."""
    intervals = [b - a for a, b in pairwise(times_seconds)]
    end_seconds = times_seconds[-1] + statistics.median(intervals)
    count = next(k for k in range(10**6) if Fraction(k, 10) >= end_seconds)
    return [bisect_right(times_seconds, Fraction(k, 10)) - 1 for k in range(count)]


def quarters(image: Image) -> Iterator[np.ndarray]:
    """Mean colour in the middle of each quarter, row by row."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    for top in (0, height):
        for left in (0, width):
            middle = image[top : top + height, left : left + width][4:-4, 4:-4]
            yield middle.mean((0, 1))


@pytest.fixture(scope="module", params=CODECS + SHAPES, ids=lambda source: source.what)
def source(request: pytest.FixtureRequest) -> Source:
    assert isinstance(request.param, Source)
    return request.param


@pytest.fixture(scope="module")
def clip(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("source") / "clip.mp4", source)


def test_a_clip_is_what_its_row_says(source: Source, clip: Path) -> None:
    with open_file(clip) as container:
        stream = video_stream(container, clip.name)
        frame = next(decode(container, stream)).picture
        assert stream.codec_context.name == source.decoder
        size = (frame.width, frame.height)
        assert size == (source.size if source.what != "rotated" else source.size[::-1])
        assert source.is_so(frame)


def test_windows_show_the_right_frames_at_the_right_times(source: Source, clip: Path) -> None:
    windows = list(file_windows(clip, WINDOW, SMALL))
    slots = expected_slots(source.times_seconds)
    assert len(windows) == len(slots) // WINDOW_FRAMES > 0
    for number, window in enumerate(windows):
        frames = slots[number * WINDOW_FRAMES :][:WINDOW_FRAMES]
        assert window.number == number
        assert (window.first_frame, window.end_frame) == (frames[0], frames[-1] + 1)
        shown_seconds = (window.start_pts_seconds, window.end_pts_seconds)
        first, last = (float(source.times_seconds[frame]) for frame in (frames[0], frames[-1]))
        assert shown_seconds == pytest.approx((first, last), abs=1e-3)
        assert_shows(window, [frames[slot] for slot in WINDOW.sampled_slots], source)


def assert_shows(window: Window, frames: list[int], source: Source) -> None:
    assert window.images.shape == (4, 32, 32, 3)
    assert window.images.dtype == np.uint8
    for image, frame in zip(window.images, frames, strict=True):
        grey = level(frame)
        expected = np.array([RED, GREEN, BLUE, (grey, grey, grey)], float)
        if source.encoding.pix_fmt == "gray":
            expected[:] = (expected @ LUMA)[:, None]
        assert np.abs(np.array(list(quarters(image))) - expected).max() < TOLERANCE


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn_degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("view", get_args(View))
def test_a_turned_picture_stands_upright_in_its_own_proportions(
    tmp_path: Path, turn_degrees: int, mirrored: bool, view: View
) -> None:
    encoding = Encoding(turn_degrees=turn_degrees, mirrored=mirrored)
    source = Source("turned", "", encoding, size=(96, 48))
    clip = encode(tmp_path / "clip.mp4", source)
    spec = replace(SMALL, width=64, view=view)
    image = next(file_windows(clip, WINDOW, spec)).images[0]
    expected = np.array([RED, GREEN, BLUE, [level(2)] * 3])
    assert np.abs(np.array(list(quarters(image))) - expected).max() < TOLERANCE


def test_readme_lists_exactly_what_is_tested() -> None:
    section = README.read_text().split("\n## What it reads\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    assert rows[0] == ("codec or shape", "how it is read")
    assert rows[1:] == [(source.what, source.how) for source in CODECS + SHAPES]


def assert_one_sentence(error: SourceError | ValueError, *said: str) -> None:
    text = str(error)
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    for words in said:
        assert words in text


def refused(path: Path) -> SourceError:
    with pytest.raises(SourceError) as refusal:
        list(file_windows(path, WINDOW, SMALL))
    return refusal.value


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for start in range(0, 4096, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(path: Path, *, first_index: bool = False) -> Path:
    """A clip of 4.8 s whose bytes are spread evenly: nothing repeats."""
    rng = np.random.default_rng(3)
    images = (rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(48))
    timed = zip(at_rate(10, 48), images, strict=True)
    return write_timed_clip(path, timed, Encoding(first_index=first_index), CLOCK)


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    error = refused(sound(tmp_path / "sound.mp4"))
    assert error.reason is Reason.NO_VIDEO
    assert_one_sentence(error, "sound.mp4 has no video stream", "give a source with one")


def test_a_recording_cut_before_its_index_is_refused(tmp_path: Path) -> None:
    error = refused(cut(noise(tmp_path / "cut.mp4")))
    assert error.reason is Reason.CODEC_UNSUPPORTED
    assert_one_sentence(error, "cut.mp4 is not a video that FFmpeg", "give a whole video file")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "avi"])
def test_a_recording_cut_after_its_index_gives_the_windows_before_and_the_sentence(
    tmp_path: Path, suffix: str
) -> None:
    clip = noise(tmp_path / f"cut.{suffix}", first_index=suffix != "avi")
    whole = list(file_windows(clip, WINDOW, SMALL))
    windows: list[Window] = []
    with pytest.raises(SourceError) as broken:
        windows.extend(file_windows(cut(clip), WINDOW, SMALL))
    assert len(whole) == 3
    assert 0 < len(windows) < 3
    assert np.array_equal(windows[0].images, whole[0].images)
    assert broken.value.reason is Reason.CODEC_UNSUPPORTED
    assert_one_sentence(broken.value, f"cut.{suffix} broke off", "give the whole file")


def test_a_file_that_grows_from_nothing_is_refused_and_then_read_as_far_as_it_goes(
    tmp_path: Path,
) -> None:
    content = noise(tmp_path / "whole.ts").read_bytes()
    clip = tmp_path / "grows.ts"
    clip.touch()
    assert_one_sentence(refused(clip), "grows.ts is empty", "once it has been written")
    clip.write_bytes(content[: len(content) // 2])
    part = list(file_windows(clip, WINDOW, SMALL))
    clip.write_bytes(content)
    whole = list(file_windows(clip, WINDOW, SMALL))
    assert 0 < len(part) < len(whole) == 3
    assert np.array_equal(part[0].images, whole[0].images)


def test_a_bare_stream_whose_frames_have_no_times_is_refused(tmp_path: Path) -> None:
    error = refused(noise(tmp_path / "bare.h264"))
    assert_one_sentence(error, "bare.h264 has no frame that decodes and has a time", "MP4")


def test_what_is_no_file_with_video_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("Tuesday: the lift is out of order.\n" * 40)
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, said in (
        (text, "notes.mp4 is not a video that FFmpeg can read"),
        (tmp_path, "is not a file"),
        (tmp_path / "pipe.mp4", "is not a file"),
        (tmp_path / "missing.mp4", "is not a file"),
        (tmp_path / ("a" * 300 + ".mp4"), "cannot be read"),
    ):
        assert_one_sentence(refused(path), said, "give a")


@pytest.mark.parametrize("name", ["12:30.mp4", "cam%03d.jpg", "concat:a.mp4", "-i.mp4"])
def test_a_file_is_read_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    encode(tmp_path / "clip.mp4", CODECS[0]).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(file_windows(Path(name), WINDOW, SMALL))) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4.8,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {}\n"),
    ],
)
def test_a_playlist_leads_nowhere(tmp_path: Path, name: str, content: str) -> None:
    noise(tmp_path / "secret.ts")
    inside = tmp_path / "clips"
    inside.mkdir()
    (inside / "link.ts").symlink_to(tmp_path / "secret.ts")
    for target in ("../secret.ts", "link.ts"):
        (inside / name).write_text(content.format(target))
        assert_one_sentence(refused(inside / name), f"{name} is not a video that FFmpeg can read")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{outside}/a.mp4", "not below a directory that the settings allow"),
        ("{inside}/../outside/a.mp4", "not below a directory that the settings allow"),
        ("{inside}/%2e%2e/outside/a.mp4", "not below a directory that the settings allow"),
        ("{inside}/link.mp4", "not below a directory that the settings allow"),
        ("{inside}/door/a.mp4", "not below a directory that the settings allow"),
        ("{inside}-more/a.mp4", "not below a directory that the settings allow"),
        ("{inside}/loop", "is a link that leads to itself; name the file"),
    ],
)
def test_a_file_outside_the_allowed_directories_is_refused(
    tmp_path: Path, path: str, said: str
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "a.mp4").write_bytes(b"secret")
    (inside / "link.mp4").symlink_to(outside / "a.mp4")
    (inside / "door").symlink_to(outside)
    (inside / "loop").symlink_to(inside / "loop")
    url = SourceUrl("file://" + path.format(inside=inside, outside=outside))
    with pytest.raises(SourceError) as denied:
        AccessPolicy(file_roots=(inside,)).allowed_file(url)
    assert denied.value.reason is Reason.ADDRESS_DENIED
    assert_one_sentence(denied.value, str(url), said)


BAD_URLS = (
    ("", "must start with one of rtsp://, rtsps://, file://"),
    ("camera-in-the-hall", "must start with one of"),
    ("//h/cam", "must start with one of"),
    ("http://h/cam", "must start with one of"),
    ("concat:/etc/passwd|/etc/hosts", "must start with one of"),
    ("rtsp:h/cam", "has no host"),
    ("rtsp://", "has no host"),
    ("rtsp://:554/cam", "has no host"),
    ("rtsp://a,b/cam", "has no host"),
    ("rtsp://[::1/cam", "expected rtsp://HOST[:PORT]/PATH"),
    ("rtsp://[zz]/cam", "expected rtsp://HOST[:PORT]/PATH"),
    ("rtsp://[::1]x/cam", "expected rtsp://HOST[:PORT]/PATH"),
    ("rtsp://[::1]x:80/cam", "expected rtsp://HOST[:PORT]/PATH"),
    ("rtsp://::1/cam", "port must be 1 to 65535"),
    ("rtsp://h\uff20x/cam", "expected rtsp://HOST[:PORT]/PATH"),
    ("rtsp://h:/cam", "port must be 1 to 65535"),
    ("rtsp://h:0/cam", "port must be 1 to 65535"),
    ("rtsp://h:65536/cam", "port must be 1 to 65535"),
    ("rtsp://h:-1/cam", "port must be 1 to 65535"),
    ("rtsp://h:+80/cam", "port must be 1 to 65535"),
    ("rtsp://h:\u0665/cam", "port must be 1 to 65535"),
    ("rtsp://h:rtsp/cam", "port must be 1 to 65535"),
    (" rtsp://h/cam", "space, control character"),
    ("rtsp://h/a cam", "space, control character"),
    ("rtsp://h/cam\r\nTeardown", "space, control character"),
    ("rtsp://h/\x00", "space, control character"),
    ("rtsp://h/\x85", "space, control character"),
    ("rtsp://h/\u2028", "space, control character"),
    ("rtsp://h/\u202e", "space, control character"),
    ("rtsp://h/\ud800", "space, control character"),
    ("rtsp://joe%0d%0aX:s3cret@h/cam", "space, control character"),
    ("file:///clips/a%00.mp4", "space, control character"),
    ("rtsp://joe:s3cret\\@h/cam", "backslash"),
    ("rtsp://joe:s3cret/x@h/cam", "in a password must be percent-encoded"),
    ("rtsp://joe:s3cret?x@h/cam", "in a password must be percent-encoded"),
    ("rtsp://joe:s3cret#x@h/cam", "in a password must be percent-encoded"),
    ("rtsp://joe:s3cret@", "has no host"),
    ("rtsp://joe:" + "s3cret" * 30 + "@h/cam", "has 184 bytes; at most 127 go"),
    ("rtsp://h/" + "a" * 2040, "has 2049 characters; at most 2048 go"),
    ("file://server/clips/a.mp4", "without a host"),
    ("file:a.mp4", "file:///absolute/path"),
    ("file:///clips/a.mp4?b", "percent-encode them"),
    ("file:///clips/cam#1.mp4", "percent-encode them"),
)


@pytest.mark.parametrize(("text", "said"), BAD_URLS, ids=[ascii(text)[:40] for text, _ in BAD_URLS])
def test_a_url_with_one_part_wrong_is_refused_without_its_secret(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as refusal:
        SourceUrl(text)
    assert_one_sentence(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_a_scheme_in_capitals_is_the_same_scheme() -> None:
    assert SourceUrl("RTSPS://joe:s3cret@H/cam").reveal() == "rtsps://joe:s3cret@H/cam"
    assert SourceUrl("File:///clips/a.mp4") == SourceUrl("file:///clips/a.mp4")


def test_a_login_that_just_fits_is_taken() -> None:
    assert SourceUrl("rtsp://joe:" + "p" * 123 + "@h/cam").has_login
