"""Cut a stream of frames into windows; pure.

A window is 16 frames, resampled by time first where the bundle declares a
rate. A gap discards the open window and restarts the numbering: a window never
spans a gap, so window number 0 always means that the head starts from zero.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from server.contract import WINDOW_FRAMES, Image, WindowSpec

MIN_GAP_SECONDS = 2.0
GAP_INTERVALS = 4
MAX_GAP_SECONDS = 300.0
"""A gap is longer than both two seconds and four median frame intervals, or than five minutes:
whoever sends odd times must not fill hours with one picture."""

CLOCK_STEP_SECONDS = 1.0
"""A window whose frames' UTC differs from the monotonic clock by as much: UTC was set."""

_INTERVALS_KEPT = 31
# Containers round times to as little as a millisecond: a frame that misses its
# grid point by less than this still counts as at it.
_GRID_TOLERANCE_SECONDS = 1e-3

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class SourceFrame(Generic[P]):
    """One decoded frame of a stream, its picture still in the decoder's form.

    Attributes:
        picture: whatever the assembler's `render` turns into an image.
        index: frame number since the source was opened, from 0.
        pts_seconds: presentation time in the stream's own clock.
        arrival_seconds: monotonic clock when its packet was demuxed.
        capture_seconds: UTC, seconds since the epoch.
    """

    picture: P
    index: int
    pts_seconds: float
    arrival_seconds: float
    capture_seconds: float


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """A window without its images.

    Attributes:
        number: windows since the last gap, from 0.
        first_frame: first source frame.
        end_frame: one past the last source frame.
        start_capture_seconds: UTC of the first frame.
        end_capture_seconds: UTC of the last frame.
        arrival_seconds: monotonic clock when the last frame arrived; NaN where
            another machine's clock had it.
    """

    number: int
    first_frame: int
    end_frame: int
    start_capture_seconds: float
    end_capture_seconds: float
    arrival_seconds: float


@dataclass(frozen=True, slots=True)
class Window:
    """Sixteen frames, reduced to the ones that the encoder sees.

    Attributes:
        number: windows since the last gap, from 0; 0 starts from a zero state.
        images: (S, H, W, 3) uint8 RGB.
        first_frame: source frame of slot 0.
        end_frame: one past the source frame of slot 15. A camera slower than
            the grid repeats frames, so neighbouring windows may share one.
        start_pts_seconds: time of slot 0's frame.
        end_pts_seconds: time of slot 15's frame.
        start_capture_seconds: UTC of slot 0's frame, by the clock that slot 15's has.
        end_capture_seconds: UTC of slot 15's frame.
        arrival_seconds: monotonic clock when slot 15's frame arrived.
    """

    number: int
    images: Image
    first_frame: int
    end_frame: int
    start_pts_seconds: float
    end_pts_seconds: float
    start_capture_seconds: float
    end_capture_seconds: float
    arrival_seconds: float

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                f"images must be (S, H, W, 3) uint8, got {self.images.shape} {self.images.dtype}"
            )

    @property
    def span(self) -> WindowSpan:
        """What remains of the window when its images are gone."""
        return WindowSpan(
            number=self.number,
            first_frame=self.first_frame,
            end_frame=self.end_frame,
            start_capture_seconds=self.start_capture_seconds,
            end_capture_seconds=self.end_capture_seconds,
            arrival_seconds=self.arrival_seconds,
        )


class WindowAssembler(Generic[P]):
    """Turns frames, pushed in order, into windows.

    Only frames that the encoder will see are rendered. At most one window is
    open at a time, so memory is bounded whatever the stream does.

    Args:
        spec: window geometry of the bundle.
        render: picture -> (H, W, 3) uint8 RGB at model size.
        opens: asked as a window opens, by its number; one that it turns down is not rendered.
        passes: told of such a window as it closes, in order with the windows.
    """

    def __init__(
        self,
        spec: WindowSpec,
        render: Callable[[P], Image],
        opens: Callable[[int], bool] = lambda number: True,
        passes: Callable[[WindowSpan], None] = lambda span: None,
    ) -> None:
        self._spec = spec
        self._render = render
        self._opens = opens
        self._passes = passes
        self._sampled = frozenset(spec.sampled_slots)
        self._intervals: deque[float] = deque(maxlen=_INTERVALS_KEPT)
        self.reset()

    def reset(self) -> None:
        """Discard the open window; the next one has number 0."""
        self._last: SourceFrame[P] | None = None
        self._first: SourceFrame[P] | None = None
        self._origin_seconds = 0.0
        self._taken = 0
        self._wanted = True
        self._images: list[Image] = []
        self._rendered: tuple[int, Image] | None = None

    def push(self, frame: SourceFrame[P]) -> Iterator[Window]:
        """Take the next frame; the iterator must be read to its end.

        Yields:
            The windows it closes: usually none or one, many where a slow camera
            skips whole windows without a gap; made one by one, as they are read.
        """
        last = self._last
        if last is None:
            yield from self._begin(frame)
            return
        interval = frame.pts_seconds - last.pts_seconds
        if interval > self._gap_limit_seconds() or interval < -MIN_GAP_SECONDS:
            if interval > 0:
                self._intervals.append(interval)
            self.reset()
            yield from self._begin(frame)
            return
        if interval <= 0:
            return  # a frame out of order cannot be placed any more
        self._intervals.append(interval)
        if self._spec.fps is None:
            self._last = frame
            yield from self._take(frame)
            return
        yield from self._take_while(last, frame.pts_seconds - _GRID_TOLERANCE_SECONDS)
        self._last = frame
        yield from self._take_while(frame, frame.pts_seconds + _GRID_TOLERANCE_SECONDS)

    def finish(self) -> Iterator[Window]:
        """The source has ended: its last frame stands for one median interval more.

        Yields:
            The windows that this closes; read them to the end.
        """
        last = self._last
        if last is None or self._spec.fps is None:
            return
        interval = statistics.median(self._intervals) if self._intervals else 0.0
        end_seconds = last.pts_seconds + min(interval, MAX_GAP_SECONDS) - _GRID_TOLERANCE_SECONDS
        yield from self._take_while(last, end_seconds)
        self.reset()

    def _begin(self, frame: SourceFrame[P]) -> list[Window]:
        self._last = frame
        self._origin_seconds = frame.pts_seconds
        return self._take(frame)

    def _gap_limit_seconds(self) -> float:
        if not self._intervals:
            return MIN_GAP_SECONDS
        usual_seconds = GAP_INTERVALS * statistics.median(self._intervals)
        return min(max(MIN_GAP_SECONDS, usual_seconds), MAX_GAP_SECONDS)

    def _take_while(self, frame: SourceFrame[P], before_seconds: float) -> Iterator[Window]:
        """Let `frame` stand for every grid point earlier than `before_seconds`."""
        assert self._spec.fps is not None
        while self._origin_seconds + self._taken / self._spec.fps < before_seconds:
            yield from self._take(frame)

    def _take(self, frame: SourceFrame[P]) -> list[Window]:
        slot = self._taken % WINDOW_FRAMES
        if slot == 0:
            self._first = frame
            self._wanted = self._opens(self._taken // WINDOW_FRAMES)
        self._taken += 1
        if self._wanted and slot in self._sampled:
            self._images.append(self._image_of(frame))
        return self._close(frame) if slot == WINDOW_FRAMES - 1 else []

    def _image_of(self, frame: SourceFrame[P]) -> Image:
        # A slow camera's frame stands for many grid points: it is rendered once.
        if self._rendered is None or self._rendered[0] != frame.index:
            self._rendered = (frame.index, self._render(frame.picture))
        return self._rendered[1]

    def _close(self, last: SourceFrame[P]) -> list[Window]:
        first = self._first
        assert first is not None
        span = WindowSpan(
            number=self._taken // WINDOW_FRAMES - 1,
            first_frame=first.index,
            end_frame=last.index + 1,
            start_capture_seconds=_start_capture_seconds(first, last),
            end_capture_seconds=last.capture_seconds,
            arrival_seconds=last.arrival_seconds,
        )
        if not self._wanted:
            self._passes(span)
            return []
        images, self._images = np.stack(self._images), []
        window = Window(
            number=span.number,
            images=images,
            first_frame=span.first_frame,
            end_frame=span.end_frame,
            start_pts_seconds=first.pts_seconds,
            end_pts_seconds=last.pts_seconds,
            start_capture_seconds=span.start_capture_seconds,
            end_capture_seconds=span.end_capture_seconds,
            arrival_seconds=span.arrival_seconds,
        )
        return [window]


def _start_capture_seconds(first: SourceFrame[P], last: SourceFrame[P]) -> float:
    """UTC of the first frame, by the clock that the last one was dated with.

    The clock may be set while a window is open; the monotonic one tells. The stream's own
    time then says how long before the last frame the first one was.
    """
    captured_seconds = last.capture_seconds - first.capture_seconds
    arrived_seconds = last.arrival_seconds - first.arrival_seconds
    if captured_seconds >= 0 and abs(captured_seconds - arrived_seconds) < CLOCK_STEP_SECONDS:
        return first.capture_seconds
    return last.capture_seconds - (last.pts_seconds - first.pts_seconds)
