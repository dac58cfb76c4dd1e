"""One stream's evidence in its worker: recent packets and frames, and alerts being recorded.

The stream's thread brings packets and frames, the worker's command thread brings
orders; neither waits for a disk. A clip ends with its alert's post-roll, or where
the source breaks off or begins something else: what there is by then is the clip.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av

from server.evidence.rules import MB, EvidenceRules
from server.ingest.bitstream import is_key_frame
from server.ingest.casefile import CaseFile
from server.ingest.filing import Filing
from server.ingest.orders import (
    DropEvidence,
    EvidenceOrder,
    EvidenceReport,
    FinishEvidence,
    HoldEvidence,
    KeepEvidence,
)
from server.ingest.packets import SCORING_SECONDS, ClipFormat, PacketRing, Unit
from server.ingest.pictures import Photographer, RecentFrames
from server.logs import about
from server.pushed import Codec, PushedFrame
from server.streams import SourceError, StreamConfig
from server.tuning import EvidenceMode

_MICROSECOND = Fraction(1, 1_000_000)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvidenceRoom:
    """What the recorders of a worker share.

    Attributes:
        rules: what is kept, and where.
        photographer: used in the evidence thread alone.
        filing: that thread.
        tell: takes every report; from that thread.
    """

    rules: EvidenceRules
    photographer: Photographer
    filing: Filing
    tell: Callable[[EvidenceReport], None]


@dataclass(slots=True, eq=False)
class _Recording:
    """An event that is or may become an alert."""

    case: CaseFile
    from_seconds: float
    ring: PacketRing | None
    peak_seconds: float | None = None
    kept: bool = False
    writing: bool = False
    until_seconds: float | None = None


class StreamRecorder:
    """Follows one stream. Safe from any thread, but for `take` and `take_push`: one at a time.

    Args:
        config: of the stream.
        room: what it shares with the others.
    """

    def __init__(self, config: StreamConfig, room: EvidenceRoom) -> None:
        self._room = room
        self._stream_id = config.stream_id
        self._mode = room.rules.mode_of(config)
        self._masks = config.masks
        self._lock = threading.RLock()
        self._frames = RecentFrames()
        self._recordings: dict[str, _Recording] = {}
        self._format: ClipFormat | None = None
        self._ring: PacketRing | None = None
        self._untimed: Unit | None = None
        self._flowing = False
        self._clipless = False

    def tune(self, config: StreamConfig) -> None:
        """Follow other settings; evidence of open alerts goes where another kind is to be kept."""
        mode = self._room.rules.mode_of(config)
        with self._lock:
            self._masks = config.masks
            if mode is self._mode:
                return
            self._mode = mode
            for recording in self._recordings.values():
                if recording.kept:
                    self._file(recording.case.abandon)
            self._recordings.clear()
            self._forget()

    def begin(self) -> None:
        """A source is about to be read."""
        with self._lock:
            self._forget()
            self._flowing = True

    def end(self) -> None:
        """The source has ended or broken off; what is left can still be asked for."""
        with self._lock:
            self._flowing = False
            self._end_clips()

    def close(self) -> None:
        """The stream is gone."""
        with self._lock:
            for recording in list(self._recordings.values()):
                if recording.kept:
                    self._file(recording.case.close)
            self._recordings.clear()
            self._forget()
            self._mode = EvidenceMode.NONE

    def take(self, packet: av.Packet[Any], capture_seconds: float) -> None:
        """The next packet of an open source, once it was decoded."""
        if self._mode is not EvidenceMode.KEEP or not packet.size:
            return
        stream: Any = packet.stream
        context = stream.codec_context
        unit = Unit(
            packet,
            packet.size,
            packet.is_keyframe,
            packet.pts or 0,
            packet.dts,
            capture_seconds,
        )
        if packet.pts is None:
            # The first packet of a live session, and the only key frame for long, has no time.
            self._untimed = unit if unit.is_key else self._untimed
            return
        untimed, self._untimed = self._untimed, None
        size = (context.width, context.height)
        with self._lock:
            if untimed is not None and not unit.is_key:
                before = replace(untimed, pts=unit.pts - 1, dts=(unit.dts or unit.pts) - 1)
                self._take(before, size, lambda: ClipFormat.of(stream))
            self._take(unit, size, lambda: ClipFormat.of(stream))

    def take_push(self, codec: Codec, frame: PushedFrame, size: tuple[int, int]) -> None:
        """The next access unit that a client pushed, once it was decoded to pictures of a size."""
        if self._mode is not EvidenceMode.KEEP or codec not in (Codec.H264, Codec.H265):
            return
        unit = Unit(
            frame.data,
            len(frame.data),
            is_key_frame(codec, frame.data),
            frame.time_microseconds,
            None,
            frame.time_microseconds / 1e6,
        )
        with self._lock:
            self._take(unit, size, lambda: ClipFormat.of_push(codec, frame.data, _MICROSECOND))

    def show(self, window_end_seconds: float, frame: av.VideoFrame) -> None:
        """The last frame of a window, which ends at this UTC capture time."""
        if self._mode is not EvidenceMode.NONE:
            with self._lock:
                self._frames.add(window_end_seconds, frame)

    def follow(self, order: EvidenceOrder) -> None:
        """Do what the server asks."""
        with self._lock:
            match order:
                case HoldEvidence():
                    self._hold(order)
                case KeepEvidence():
                    self._keep(order)
                case FinishEvidence():
                    self._finish(order)
                case DropEvidence():
                    self._recordings.pop(order.alert_id, None)

    def _hold(self, order: HoldEvidence | KeepEvidence) -> _Recording | None:
        rules = self._room.rules
        if self._mode is EvidenceMode.NONE or rules.directory is None:
            return None
        recording = self._recordings.get(order.alert_id)
        if recording is None:
            case = CaseFile(
                rules.directory,
                self._stream_id,
                order.alert_id,
                self._room.photographer,
                self._room.tell,
            )
            recording = _Recording(case, order.from_seconds, self._ring)
            self._recordings[order.alert_id] = recording
        frame = self._frames.nearest(order.peak_seconds)
        if recording.peak_seconds != order.peak_seconds and frame is not None:
            case, masks, blur = recording.case, self._masks, self._mode is EvidenceMode.BLUR
            self._file(lambda: case.photograph(frame, masks, blur=blur))
        recording.peak_seconds = order.peak_seconds
        return recording

    def _keep(self, order: KeepEvidence) -> None:
        recording = self._hold(order)
        if recording is None:
            self._room.tell(EvidenceReport(self._stream_id, order.alert_id, final=True))
            return
        if recording.kept:
            return
        recording.kept = True
        case, ring = recording.case, recording.ring
        self._file(case.open)
        units = ring.since(recording.from_seconds) if ring is not None else []
        if ring is None or not units:
            return
        format, max_bytes = ring.format, self._room.rules.max_clip_mb * MB
        self._file(lambda: case.begin_clip(format, units, max_bytes))
        recording.writing = True
        if ring is not self._ring or not self._flowing:
            self._end_clip(recording)

    def _finish(self, order: FinishEvidence) -> None:
        recording = self._recordings.get(order.alert_id)
        if recording is None:
            return
        recording.until_seconds = order.until_seconds
        if not recording.writing:
            self._conclude(recording)

    def _take(
        self, unit: Unit, size: tuple[int, int], make_format: Callable[[], ClipFormat]
    ) -> None:
        if self._mode is not EvidenceMode.KEEP:
            return  # since the last look
        if unit.is_key:
            self._begin_ring_if_needed(unit, size, make_format)
        elif self._ring is not None and not self._ring.follows(unit):
            self._end_clips()
            self._ring = None
        ring = self._ring
        if ring is None:
            return
        held = [one.from_seconds for one in self._recordings.values() if not one.kept]
        ring.add(unit, min(held, default=None))
        for recording in list(self._recordings.values()):
            if recording.writing:
                self._write(recording, unit)

    def _begin_ring_if_needed(
        self, unit: Unit, size: tuple[int, int], make_format: Callable[[], ClipFormat]
    ) -> None:
        if self._clipless:
            return
        try:
            format = (self._format or make_format()).seen_in(unit, size)
        except SourceError as error:
            self._clipless = True
            _logger.warning("no clips are kept: %s", error.sentence, extra=about(self._stream_id))
            return
        ring = self._ring
        if ring is None or format is not ring.format or not ring.follows(unit):
            self._end_clips()
            keep_seconds = self._room.rules.pre_roll_seconds + SCORING_SECONDS
            self._ring = PacketRing(format, keep_seconds)
        self._format = format

    def _write(self, recording: _Recording, unit: Unit) -> None:
        case, until_seconds = recording.case, recording.until_seconds
        if until_seconds is not None and unit.capture_seconds > until_seconds:
            self._end_clip(recording)
        elif not self._room.filing.submit(lambda: case.add(unit), unit.size):
            self._end_clip(recording, "the disk is too slow for its clip, which ends early")

    def _end_clips(self) -> None:
        for recording in list(self._recordings.values()):
            if recording.writing:
                self._end_clip(recording)

    def _end_clip(self, recording: _Recording, problem: str = "") -> None:
        recording.writing = False
        self._file(lambda: recording.case.end_clip(problem))
        if recording.until_seconds is not None:
            self._conclude(recording)

    def _conclude(self, recording: _Recording) -> None:
        self._file(recording.case.close)
        self._recordings = {
            alert_id: one for alert_id, one in self._recordings.items() if one is not recording
        }

    def _forget(self) -> None:
        self._end_clips()
        self._frames.clear()
        self._format = self._ring = self._untimed = None
        self._clipless = False

    def _file(self, work: Callable[[], None]) -> None:
        self._room.filing.submit(work)
