"""What a client asks of a calibration, to a message and back; checked where it comes in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from gvvad.v1 import stream_pb2

from server.calibration import LONGEST_BUDGET, CalibrationAsk, RecordedScores
from server.rpc.mapping import stream_name
from server.rpc.tuning_messages import length_seconds
from server.rpc.wire import InvalidError, duration
from server.series import ScoreSeries

LONGEST_WINDOW_SECONDS = 3600.0
LONGEST_PAST_SECONDS = 3650 * 86_400.0


def calibration_ask(request: stream_pb2.CalibrateStreamRequest) -> CalibrationAsk:
    """What to learn, and from what footage.

    Raises:
        InvalidError: a field that cannot be used.
    """
    budget = request.false_alarms_per_day
    if not 0 < budget <= LONGEST_BUDGET:  # not a number is refused too
        raise InvalidError(
            f"false_alarms_per_day ({budget:g}) must be over 0 and at most {LONGEST_BUDGET:g}"
        )
    past_seconds = None
    if request.HasField("past"):
        past_seconds = length_seconds(request.past, "past")
        if not 0 < past_seconds <= LONGEST_PAST_SECONDS:
            raise InvalidError(f"past ({past_seconds:g} s) must be over 0 s and at most ten years")
    recorded = _recorded(request.recorded) if request.HasField("recorded") else None
    return CalibrationAsk(budget, past_seconds, recorded, request.apply)


def calibration_request(stream_id: str, ask: CalibrationAsk) -> stream_pb2.CalibrateStreamRequest:
    """The same as a message."""
    request = stream_pb2.CalibrateStreamRequest(
        name=stream_name(stream_id),
        false_alarms_per_day=ask.false_alarms_per_day,
        apply=ask.apply,
    )
    if ask.recorded is not None:
        request.recorded.bundle_id = ask.recorded.bundle_id
        request.recorded.runs.extend(_runs(ask.recorded.series))
    elif ask.past_seconds is not None:
        request.past.CopyFrom(duration(ask.past_seconds))
    return request


def _recorded(message: stream_pb2.RecordedScores) -> RecordedScores:
    runs = [_run(run, f"recorded.runs[{place}]") for place, run in enumerate(message.runs)]
    return RecordedScores(message.bundle_id, ScoreSeries.joined(runs))


def _run(message: stream_pb2.ScoreRun, field: str) -> ScoreSeries:
    window_seconds = length_seconds(message.window, f"{field}.window")
    if not 0 < window_seconds <= LONGEST_WINDOW_SECONDS:
        raise InvalidError(
            f"{field}.window ({window_seconds:g} s) must be over 0 s "
            f"and at most {LONGEST_WINDOW_SECONDS:g} s"
        )
    scores = np.array(message.scores, np.float64)
    wrong = scores[~((scores >= 0) & (scores <= 1))]
    if len(wrong):
        raise InvalidError(f"{field}.scores: a score of {wrong[0]:g}; expected 0 to 1")
    return ScoreSeries.regular(window_seconds, scores)


def _runs(series: ScoreSeries) -> list[stream_pb2.ScoreRun]:
    """One a stretch without a gap or a dropped window."""
    dropped = np.isnan(series.scores)
    breaks = series.after_gap | dropped
    breaks[1:] |= dropped[:-1]
    breaks[:1] = True
    edges = [*np.flatnonzero(breaks), len(series)]
    runs = []
    for start, end in pairwise(edges):
        part = series.part(int(start), int(end))
        if np.isnan(part.scores[0]):
            continue
        runs.append(stream_pb2.ScoreRun(window=duration(part.window_seconds()), scores=part.scores))
    return runs
