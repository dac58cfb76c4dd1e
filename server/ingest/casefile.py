"""One alert's evidence on its way to the disk; the worker's evidence thread alone has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import av.error

from server.evidence.files import EvidenceKind, delete_files, evidence_path, new_file
from server.ingest.clip import Clip, ClipError, ClipWriter
from server.ingest.orders import EvidenceReport
from server.ingest.packets import ClipFormat, Unit
from server.ingest.pictures import Photographer
from server.logs import about
from server.tuning import Mask

_logger = logging.getLogger(__name__)


class CaseFile:
    """The snapshot and the clip of one alert.

    Args:
        directory: where evidence goes.
        stream_id: the stream.
        alert_id: the alert.
        photographer: of this thread.
        tell: called with what there is whenever it has changed for good.
    """

    def __init__(
        self,
        directory: Path,
        stream_id: str,
        alert_id: str,
        photographer: Photographer,
        tell: Callable[[EvidenceReport], None],
    ) -> None:
        self._directory = directory
        self._stream_id = stream_id
        self._alert_id = alert_id
        self._photographer = photographer
        self._tell = tell
        self._jpeg = b""
        self._written_jpeg = b""
        self._writer: ClipWriter | None = None
        self._clip: Clip | None = None
        self._problem = ""

    def photograph(self, frame: av.VideoFrame, masks: tuple[Mask, ...], *, blur: bool) -> None:
        """Take the picture of a peak, in place of a lower one's."""
        try:
            self._jpeg = self._photographer.jpeg(frame, masks, blur=blur)
        except (av.error.FFmpegError, MemoryError) as error:
            self._note(f"no picture can be made of its peak ({type(error).__name__})")

    def open(self) -> None:
        """The alert has begun: its picture can be looked at already."""
        self._write_snapshot()
        self._report(final=False)

    def begin_clip(self, format: ClipFormat, units: Sequence[Unit], max_bytes: int) -> None:
        """Begin the clip with what came before."""
        self._writer = ClipWriter(self._path(EvidenceKind.CLIP), format, max_bytes)
        self._writer.add(units)

    def add(self, unit: Unit) -> None:
        """Add the next packet to the clip."""
        if self._writer is not None:
            self._writer.add([unit])

    def end_clip(self, problem: str = "") -> None:
        """Finish the clip; `problem` says why it goes no further, where it should."""
        writer, self._writer = self._writer, None
        self._note(problem)
        if writer is None:
            return
        try:
            self._clip = writer.finish()
        except ClipError as error:
            self._note(f"its clip cannot be written ({error})")

    def close(self) -> None:
        """Nothing more comes."""
        self.end_clip()
        self._write_snapshot()
        if not self._written_jpeg and self._clip is None and not self._problem:
            self._note("no picture of it was left")
        self._report(final=True)

    def abandon(self) -> None:
        """Leave nothing of it."""
        if self._writer is not None:
            self._writer.abandon()
        self._written_jpeg, self._clip, self._problem = b"", None, ""
        try:
            delete_files(self._directory, self._stream_id, self._alert_id)
        except OSError as error:
            self._note(f"its files cannot be deleted ({error.strerror})")
        self._report(final=True)

    def _write_snapshot(self) -> None:
        if self._jpeg == self._written_jpeg:
            return
        try:
            with new_file(self._path(EvidenceKind.SNAPSHOT)) as file:
                file.write(self._jpeg)
            self._written_jpeg = self._jpeg
        except OSError as error:
            self._note(f"its snapshot cannot be written ({error.strerror})")

    def _note(self, problem: str) -> None:
        if problem:
            self._problem = problem
            _logger.warning(
                "alert %s: evidence: %s",
                self._alert_id,
                problem,
                extra=about(self._stream_id, alert=self._alert_id),
            )

    def _report(self, *, final: bool) -> None:
        clip = self._clip
        self._tell(
            EvidenceReport(
                self._stream_id,
                self._alert_id,
                final,
                snapshot_bytes=len(self._written_jpeg),
                clip_bytes=clip.size_bytes if clip else 0,
                clip_start_seconds=clip.start_seconds if clip else None,
                clip_end_seconds=clip.end_seconds if clip else None,
                problem=self._problem,
            )
        )

    def _path(self, kind: EvidenceKind) -> Path:
        return evidence_path(self._directory, self._stream_id, self._alert_id, kind)
