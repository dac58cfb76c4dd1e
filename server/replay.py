"""Recorded clips through the server's own path: decode, windows, encoder, head, alerts.

Lossless and faster than real time: clips are decoded ahead of the engine on
threads of their own, a bounded number of windows each. Windows of one clip are
encoded in batches of a fixed size, so that a replay repeats to the bit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from server.alert_machine import AlertMachine
from server.alerts import Alert, AlertPolicy, ScoredSpan
from server.bundle import Bundle
from server.ingest.video import file_windows
from server.scoring import Detector, StreamMemory, Verdict, score_features
from server.streams import SourceError
from server.tuning import Mask
from server.windows import Window

BATCH = 8
"""Windows of one run of the encoder, but for a clip's last ones."""
_DECODERS = 2


@dataclass(frozen=True, slots=True)
class ClipReplay:
    """What a camera that had shown this clip would have got.

    Attributes:
        path: the clip.
        first_frames: first source frame of each window.
        end_frames: one past the last source frame of each.
        scores: one a window, in [0, 1].
        windows: what the alert machine saw of each.
        alerts: closed alerts; their times are seconds in the clip, their
            sequences windows of the clip.
        opened_frames: one past the last source frame of the window that opened each.
        error: why the clip could not be read, or could not to its end.
    """

    path: Path
    first_frames: tuple[int, ...]
    end_frames: tuple[int, ...]
    scores: tuple[float, ...]
    windows: tuple[ScoredSpan, ...]
    alerts: tuple[Alert, ...]
    opened_frames: tuple[int, ...]
    error: SourceError | None

    def alert_frames(self, alert: Alert, frames: int) -> tuple[int, int]:
        """Half-open interval of source frames that an alert covers, in a clip of `frames`."""
        after = alert.last_sequence + 1
        end = self.first_frames[after] if after < len(self.first_frames) else frames
        return self.first_frames[alert.first_sequence], end


def replay(
    paths: Sequence[Path],
    bundle: Bundle,
    detector: Detector,
    policy: AlertPolicy,
    masks: Sequence[Mask] = (),
) -> Iterator[ClipReplay]:
    """Replay clips in order, each as a stream of its own, with these masks, from a zero state."""
    ahead: list[_Decoding] = []
    waiting = iter(paths)
    try:
        ahead += [_Decoding(path, bundle, masks) for path in islice(waiting, _DECODERS)]
        while ahead:
            current = ahead[0]
            yield _replay_clip(current, bundle, detector, policy)
            ahead.pop(0)
            ahead += [_Decoding(path, bundle, masks) for path in islice(waiting, 1)]
    finally:
        for decoding in ahead:
            decoding.cancel()


class _Decoding:
    """One clip being decoded on its own thread, a bounded number of windows ahead."""

    def __init__(self, path: Path, bundle: Bundle, masks: Sequence[Mask]) -> None:
        self.path = path
        self.error: SourceError | None = None
        self._bundle = bundle
        self._masks = masks
        self._ready: queue.Queue[Window | None] = queue.Queue(2 * BATCH)
        self._cancelled = threading.Event()
        threading.Thread(target=self._decode, name=f"decode {path.name}", daemon=True).start()

    def windows(self) -> Iterator[Window]:
        """Windows in order; afterwards `error` says whether the clip broke off."""
        while (window := self._ready.get()) is not None:
            yield window

    def cancel(self) -> None:
        """Stop decoding soon; nobody reads any more."""
        self._cancelled.set()

    def _decode(self) -> None:
        manifest = self._bundle.manifest
        try:
            spec = manifest.preprocess
            for window in file_windows(self.path, manifest.window, spec, self._masks):
                if not self._put(window):
                    return
        except SourceError as error:
            self.error = error
        self._put(None)

    def _put(self, window: Window | None) -> bool:
        while not self._cancelled.is_set():
            try:
                self._ready.put(window, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


def _replay_clip(
    decoding: _Decoding, bundle: Bundle, detector: Detector, policy: AlertPolicy
) -> ClipReplay:
    memory = StreamMemory()
    machine = AlertMachine(decoding.path.name, bundle.bundle_id, policy)
    spans: list[tuple[int, int]] = []
    seen: list[ScoredSpan] = []
    scores: list[float] = []
    changes: list[Alert] = []
    windows = decoding.windows()
    while batch := list(islice(windows, BATCH)):
        features = detector.encode(np.stack([window.images for window in batch]))
        for window, feature in zip(batch, features, strict=True):
            if window.number == 0:
                memory.reset()
            verdict = score_features(detector, feature[None], [memory])[0]
            seen.append(_span(len(scores), window, verdict))
            changes += machine.push(seen[-1])
            spans.append((window.first_frame, window.end_frame))
            scores.append(verdict.score)
    changes += machine.finish()
    first_frames, end_frames = tuple(zip(*spans, strict=True)) or ((), ())
    return ClipReplay(
        path=decoding.path,
        first_frames=first_frames,
        end_frames=end_frames,
        scores=tuple(scores),
        windows=tuple(seen),
        alerts=tuple(alert for alert in changes if alert.is_closed),
        # As an alert opens, its last window is the newest one of the clip.
        opened_frames=tuple(
            end_frames[alert.last_sequence] for alert in changes if not alert.is_closed
        ),
        error=decoding.error,
    )


def _span(sequence: int, window: Window, verdict: Verdict) -> ScoredSpan:
    return ScoredSpan(
        sequence=sequence,
        start_seconds=window.start_pts_seconds,
        end_seconds=window.end_pts_seconds,
        score=verdict.score,
        after_gap=window.number == 0,
        explanation=verdict.explanation,
    )
