"""The clips that a benchmark's cameras play, one for each kind, and longer ones for replay."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av

from server.bench.clips import render
from server.bench.kinds import CLIP_SECONDS, CameraKind
from server.ingest.video import open_file, video_stream

REPLAY_SECONDS = 60.0
"""Streams of short clips would end and begin all the time."""


def clip_folder() -> Path | None:
    """Where rendered clips are kept for the next time; None where nothing can be kept.

    Source: XDG Base Directory Specification 0.8.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "gvvad" / "bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def clip_of(kind: CameraKind, folder: Path) -> Path | None:
    """The clip that a kind of camera plays; None for a real camera."""
    if kind.size is None or kind.fps is None:
        return kind.file
    # Slower cameras have a scene of their own, as their frames lie further apart.
    return render(folder, kind.size, max(1, round(kind.fps)), CLIP_SECONDS)


def repeated(clip: Path, path: Path, seconds: float = REPLAY_SECONDS) -> Path:
    """Play a clip over and over into one file, packets as they are.

    Args:
        clip: a video without B-frames.
        path: MP4 file to write.
        seconds: that it has at least.
    """
    with av.open(str(path), "w", format="mp4") as longer:
        written_seconds, stream = Fraction(0), None
        while written_seconds < seconds:
            with open_file(clip) as container:
                source = video_stream(container, str(clip))
                stream = stream or longer.add_stream_from_template(source)
                rate = source.average_rate or Fraction(25)
                for number, packet in enumerate(one for one in container.demux(source) if one.size):
                    packet.pts = packet.dts = round(
                        (written_seconds + number / rate) / packet.time_base
                    )
                    packet.stream = stream
                    longer.mux(packet)
                written_seconds += (number + 1) / rate
    return path
