"""What a client may ask of a calibration, and what it is told otherwise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from gvvad.v1 import stream_pb2, stream_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from server.alerts import ScoredSpan
from server.calibration import CalibrationAsk, RecordedScores
from server.rpc.calibration import calibration_ask, calibration_request
from server.series import ScoreSeries
from tests.support.caller import Caller, refused

RUN = stream_pb2.ScoreRun(window=Duration(seconds=2), scores=[0.1] * 600)


def request(**fields: Any) -> stream_pb2.CalibrateStreamRequest:
    return stream_pb2.CalibrateStreamRequest(
        **{"name": "streams/hall", "false_alarms_per_day": 1.0} | fields
    )


def recorded(caller: Caller, **fields: Any) -> stream_pb2.RecordedScores:
    return stream_pb2.RecordedScores(**{"bundle_id": served(caller), "runs": [RUN]} | fields)


def served(caller: Caller) -> str:
    return caller._client.model().bundle_id


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "hall"}, "name ('hall') must be streams/{id}"),
        ({"false_alarms_per_day": 0.0}, "false_alarms_per_day (0) must be over 0 and at most 1000"),
        ({"false_alarms_per_day": math.nan}, "false_alarms_per_day (nan) must be over 0"),
        ({"false_alarms_per_day": 1001.0}, "false_alarms_per_day (1001) must be over 0"),
        ({"past": Duration()}, "past (0 s) must be over 0 s"),
        ({"past": Duration(seconds=-5)}, "past (-5 s) must be over 0 s"),
        ({"past": Duration(nanos=2**30)}, "past (0 s, 1073741824 ns) is no duration"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_by_name(streams, fields, told) -> None:
    answer = refused(streams.CalibrateStream, request(**fields))
    assert answer.code == "INVALID_ARGUMENT"
    assert (answer.sentence or "").startswith(told)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"window": None}, "recorded.runs[1].window (0 s) must be over 0 s and at most 3600 s"),
        ({"window": Duration(seconds=3601)}, "recorded.runs[1].window (3601 s) must be"),
        ({"scores": [0.5, 1.5]}, "recorded.runs[1].scores: a score of 1.5; expected 0 to 1"),
        ({"scores": [math.nan]}, "recorded.runs[1].scores: a score of nan; expected 0 to 1"),
    ],
)
def test_recorded_scores_that_make_no_sense_are_refused_by_place(
    caller, streams, run, told
) -> None:
    bad = stream_pb2.ScoreRun(**{"window": Duration(seconds=2), "scores": [0.1]} | run)
    answer = refused(streams.CalibrateStream, request(recorded=recorded(caller, runs=[RUN, bad])))
    assert answer.code == "INVALID_ARGUMENT"
    assert (answer.sentence or "").startswith(told)


def test_an_unknown_stream_is_not_found(caller, streams) -> None:
    answer = refused(
        streams.CalibrateStream, request(name="streams/ghost", recorded=recorded(caller))
    )
    assert answer.code == "NOT_FOUND"


def test_scores_of_another_bundle_fail_a_precondition(caller, streams) -> None:
    answer = refused(
        streams.CalibrateStream, request(recorded=recorded(caller, bundle_id="e" * 64))
    )
    assert answer.code == "FAILED_PRECONDITION"
    assert (answer.sentence or "").startswith(
        "recorded.bundle_id (eeeeeeeeeeee) must be the bundle"
    )


def test_a_stream_without_a_past_fails_a_precondition(streams) -> None:
    answer = refused(streams.CalibrateStream, request())
    assert answer.code == "FAILED_PRECONDITION"
    assert "0.0 minutes of scores in 0 windows are too few" in (answer.sentence or "")


def test_two_weeks_of_scores_fit_and_no_more_is_taken(caller, streams) -> None:
    weeks = stream_pb2.ScoreRun(window=Duration(seconds=2), scores=[0.1] * 945_000)
    stub: stream_pb2_grpc.StreamServiceStub = streams
    found = stub.CalibrateStream(request(recorded=recorded(caller, runs=[weeks])), timeout=60)
    assert found.measurable
    assert found.watched.seconds == 945_000 * 2 - 1
    answer = refused(streams.CalibrateStream, request(recorded=recorded(caller, runs=[weeks] * 2)))
    assert answer.code == "RESOURCE_EXHAUSTED"
    assert "at most 4194304 go" in (answer.sentence or "")


def test_an_answer_that_is_not_applied_changes_nothing(caller, streams) -> None:
    before = streams.GetStream(stream_pb2.GetStreamRequest(name="streams/hall"), timeout=10)
    found = streams.CalibrateStream(request(recorded=recorded(caller)), timeout=10)
    assert not found.applied
    assert found.curve
    after = streams.GetStream(stream_pb2.GetStreamRequest(name="streams/hall"), timeout=10)
    assert after == before


def test_an_answer_that_is_applied_is_the_streams(caller, streams) -> None:
    found = streams.CalibrateStream(request(recorded=recorded(caller), apply=True), timeout=10)
    assert found.applied
    hall = streams.GetStream(stream_pb2.GetStreamRequest(name="streams/hall"), timeout=10)
    assert hall.open_threshold == found.open_threshold == hall.calibration.open_threshold
    assert hall.calibration.applied
    assert not hall.calibration.curve


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.none() | st.floats(0, 1, width=32), st.booleans()), max_size=80),
    st.floats(0.01, 1000),
)
def test_recorded_scores_survive_the_way_but_for_what_was_dropped(windows, per_day) -> None:
    spans = [
        ScoredSpan(index, index * 1.28, index * 1.28 + 1.2, score, gap or index == 0)
        for index, (score, gap) in enumerate(windows)
    ]
    series = ScoreSeries.of(spans)
    ask = CalibrationAsk(per_day, recorded=RecordedScores("ab" * 32, series), apply=True)
    read = calibration_ask(calibration_request("door", ask))
    assert (read.false_alarms_per_day, read.apply, read.past_seconds) == (per_day, True, None)
    assert read.recorded is not None
    found = read.recorded.series
    np.testing.assert_array_equal(found.known(), series.known())
    np.testing.assert_allclose(
        found.end_seconds - found.start_seconds, np.full(len(found), 1.2), atol=1e-5
    )
