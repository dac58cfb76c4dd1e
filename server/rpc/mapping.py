"""Domain values to messages and back, for both ends of the wire.

What a client sends is checked in `requests`; what the server sends is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from gvvad.v1 import model_pb2, score_pb2, stream_pb2
from gvvad.v1.score_pb2 import ScoreVideoRequest

from server.bank import Explanation, NearSentence
from server.pushed import Codec, PushCounts, PushedFrame, PushFormat
from server.rpc import tuning_messages
from server.rpc.wire import InvalidError, duration, seconds, timestamp
from server.scoring import DropReason, WindowScore
from server.streams import (
    STREAM_ID,
    Mode,
    Reason,
    SourceUrl,
    StreamConfig,
    StreamState,
    StreamStatus,
    Transport,
    shown,
)
from server.views import ModelInfo, StreamView
from server.windows import WindowSpan

_PREFIX = "streams/"

SENTENCE_KEY = "gvvad-sentence"
"""Trailing metadata of a refusal: its details are a sentence of the server, not of gRPC."""


def stream_name(stream_id: str) -> str:
    """Resource name of a stream.

    >>> stream_name("door")
    'streams/door'
    """
    return _PREFIX + stream_id


def stream_id(name: str, field: str) -> str:
    """Id in a resource name; `field` is the field that holds it.

    Raises:
        InvalidError: not `streams/{id}`.
    """
    found = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX) or not STREAM_ID.fullmatch(found):
        raise InvalidError(
            f"{field} ({shown(name)!r}) must be streams/{{id}}, "
            "with an id of 1 to 63 of a-z, 0-9 and '-'"
        )
    return found


def config_message(config: StreamConfig, *, reveal: bool) -> stream_pb2.Stream:
    """The fields that a client sets.

    Args:
        config: of the stream.
        reveal: True on the way to the server only: the URL keeps its credentials.
    """
    message = stream_pb2.Stream(
        name=stream_name(config.stream_id),
        url=config.url.reveal() if reveal else str(config.url),
        mode=MODE[config.mode],
        transport=TRANSPORT[config.transport],
        open_threshold=config.open_threshold,
    )
    tuning_messages.write_tuning(message, config.alerts, config.evidence_mode, config.masks)
    tuning_messages.write_load(message, config.sampling, config.sampling_when_full, config.priority)
    return message


def stream_message(view: StreamView) -> stream_pb2.Stream:
    """A stream as the API shows it: without credentials."""
    message = config_message(view.config, reveal=False)
    status = view.status
    message.status.state = _STATE[status.state]
    message.status.reason = _REASON[status.reason]
    # A second net: sentences are redacted where they are made, but FFmpeg's words are many.
    message.status.message = view.config.url.redact(status.message)
    message.status.frames_decoded = status.frames_decoded
    message.status.reconnects = status.reconnects
    if status.last_frame_seconds is not None:
        message.status.last_frame_time.CopyFrom(timestamp(status.last_frame_seconds))
    message.status.next_sequence = view.next_sequence
    if view.last_score is not None:
        message.status.last_score = view.last_score
    message.create_time.CopyFrom(timestamp(view.created_seconds))
    message.thinned = view.thinned
    if view.calibration is not None:
        message.calibration.CopyFrom(tuning_messages.calibration_message(view.calibration))
    return message


def stream_view(message: stream_pb2.Stream) -> StreamView:
    """A stream as the API showed it."""
    found = message.status
    status = StreamStatus(
        state=_STATE_OF[found.state],
        reason=_REASON_OF[found.reason],
        message=found.message,
        frames_decoded=found.frames_decoded,
        reconnects=found.reconnects,
        last_frame_seconds=(
            seconds(found.last_frame_time) if found.HasField("last_frame_time") else None
        ),
    )
    config = StreamConfig(
        stream_id=stream_id(message.name, "name"),
        url=SourceUrl(message.url),
        mode=MODE_OF[message.mode],
        transport=TRANSPORT_OF[message.transport],
        open_threshold=message.open_threshold if message.HasField("open_threshold") else None,
        alerts=tuning_messages.alert_tuning(message),
        evidence_mode=tuning_messages.evidence_mode(message),
        masks=tuning_messages.masks(message),
        sampling=tuning_messages.sampling(message.sampling, "sampling"),
        sampling_when_full=tuning_messages.sampling_when_full(message),
        priority=tuning_messages.priority(message),
    )
    return StreamView(
        config=config,
        status=status,
        next_sequence=found.next_sequence,
        last_score=found.last_score if found.HasField("last_score") else None,
        created_seconds=seconds(message.create_time),
        calibration=(
            tuning_messages.calibration(message.calibration)
            if message.HasField("calibration")
            else None
        ),
        thinned=message.thinned,
    )


def score_message(score: WindowScore, bundle_id: str) -> score_pb2.WindowScore:
    """What became of a window; `bundle_id` says which bundle scored it."""
    return score_pb2.WindowScore(
        stream=stream_name(score.stream_id),
        sequence=score.sequence,
        window_number=score.span.number,
        first_frame=score.span.first_frame,
        end_frame=score.span.end_frame,
        start_time=timestamp(score.span.start_capture_seconds),
        end_time=timestamp(score.span.end_capture_seconds),
        score=score.score,
        drop_reason=_DROP[score.drop_reason],
        latency=duration(score.latency_seconds),
        bundle_id=bundle_id,
        explanation=told(score.explanation),
    )


def window_score(message: score_pb2.WindowScore) -> WindowScore:
    """What became of a window.

    The server's monotonic clock means nothing here, so `arrival_seconds` is NaN.
    """
    span = WindowSpan(
        number=message.window_number,
        first_frame=message.first_frame,
        end_frame=message.end_frame,
        start_capture_seconds=seconds(message.start_time),
        end_capture_seconds=seconds(message.end_time),
        arrival_seconds=math.nan,
    )
    return WindowScore(
        stream_id=stream_id(message.stream, "stream"),
        sequence=message.sequence,
        span=span,
        score=message.score if message.HasField("score") else None,
        drop_reason=_DROP_OF[message.drop_reason],
        latency_seconds=message.latency.ToNanoseconds() / 1e9,
        explanation=explanation_of(message.explanation),
    )


def push_message(
    counts: PushCounts, missed: int = 0, score: score_pb2.WindowScore | None = None
) -> score_pb2.ScoreVideoResponse:
    """An answer to a client that pushes: a score, or the final counts alone."""
    return score_pb2.ScoreVideoResponse(
        score=score,
        missed=missed,
        frames_received=counts.received,
        frames_dropped=counts.dropped,
        frames_damaged=counts.damaged,
    )


def push_start(stream_id: str | None, temporary_id: str, push: PushFormat) -> ScoreVideoRequest:
    """The first message of a call that pushes video."""
    return ScoreVideoRequest(
        start=score_pb2.VideoStart(
            stream="" if stream_id is None else stream_name(stream_id),
            temporary_stream_id=temporary_id,
            codec=CODEC[push.codec],
            width=push.width,
            height=push.height,
            delivery=(score_pb2.DELIVERY_LOSSLESS if push.lossless else score_pb2.DELIVERY_LIVE),
        )
    )


def pushed_frame(frame: PushedFrame) -> ScoreVideoRequest:
    """One frame of such a call."""
    message = ScoreVideoRequest(frame=score_pb2.VideoFrame(data=frame.data))
    message.frame.time.FromMicroseconds(frame.time_microseconds)
    return message


def push_counts(message: score_pb2.ScoreVideoResponse) -> PushCounts:
    """What became of the call's frames so far."""
    return PushCounts(message.frames_received, message.frames_dropped, message.frames_damaged)


def told(explanation: Explanation) -> list[score_pb2.NearSentence]:
    """What a window resembles, as messages."""
    return [
        score_pb2.NearSentence(text=near.text, anomalous=near.anomalous, weight=near.weight)
        for near in explanation
    ]


def explanation_of(messages: Iterable[score_pb2.NearSentence]) -> Explanation:
    """What a window resembles."""
    return tuple(NearSentence(near.text, near.anomalous, near.weight) for near in messages)


def model_message(model: ModelInfo) -> model_pb2.Model:
    """The bundle that is served and what runs it."""
    return model_pb2.Model(
        bundle_id=model.bundle_id,
        bundle_name=model.bundle_name,
        encoder=model.encoder,
        engine=model.engine,
        precision=model.precision,
        device=model.device,
        threshold=model.threshold,
        window=None if model.window_seconds is None else duration(model.window_seconds),
        fps=model.fps,
        sampled_frames=model.sampled_frames,
        height=model.height,
        width=model.width,
        feature_dim=model.feature_dim,
    )


def model_info(message: model_pb2.Model) -> ModelInfo:
    """The bundle that is served and what runs it."""
    has_window = message.HasField("window")
    return ModelInfo(
        bundle_id=message.bundle_id,
        bundle_name=message.bundle_name,
        encoder=message.encoder,
        engine=message.engine,
        precision=message.precision,
        device=message.device,
        threshold=message.threshold,
        window_seconds=message.window.ToNanoseconds() / 1e9 if has_window else None,
        fps=message.fps if message.HasField("fps") else None,
        sampled_frames=message.sampled_frames,
        height=message.height,
        width=message.width,
        feature_dim=message.feature_dim,
    )


# Enums bear the same names on both sides; None is the value that was not given.
MODE = {item: stream_pb2.Mode.Value(f"MODE_{item.name}") for item in Mode} | {
    None: stream_pb2.MODE_UNSPECIFIED
}
TRANSPORT = {item: stream_pb2.Transport.Value(f"TRANSPORT_{item.name}") for item in Transport} | {
    None: stream_pb2.TRANSPORT_UNSPECIFIED
}
_STATE = {item: stream_pb2.StreamState.Value(f"STREAM_STATE_{item.name}") for item in StreamState}
_REASON = {item: stream_pb2.StreamReason.Value(f"STREAM_REASON_{item.name}") for item in Reason} | {
    None: stream_pb2.STREAM_REASON_UNSPECIFIED
}
_DROP = {item: score_pb2.DropReason.Value(f"DROP_REASON_{item.name}") for item in DropReason} | {
    None: score_pb2.DROP_REASON_UNSPECIFIED
}

CODEC = {item: score_pb2.VideoCodec.Value(f"VIDEO_CODEC_{item.name}") for item in Codec}

CODEC_OF = {value: key for key, value in CODEC.items()}
MODE_OF = {value: key for key, value in MODE.items() if key is not None}
TRANSPORT_OF = {value: key for key, value in TRANSPORT.items() if key is not None}
_STATE_OF = {value: key for key, value in _STATE.items()}
_REASON_OF = {value: key for key, value in _REASON.items()}
_DROP_OF = {value: key for key, value in _DROP.items()}
