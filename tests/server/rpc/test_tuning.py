"""Alert policies over gRPC: what a mask names, what does not fit, what two clients do at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from gvvad.v1 import stream_pb2

from server.rpc.client import Client, ClientError, StreamChange
from server.sampling import EVERY_WINDOW, EveryNth, OnMotion
from server.streams import SourceUrl, StreamConfig
from server.tuning import AlertTuning, QuietHours
from tests.support.serving import ServerProcess

HALL = StreamConfig("tuned", SourceUrl("rtsp://127.0.0.1:1/a"), open_threshold=0.6)
NIGHT = QuietHours((), "22:00", "06:00", "UTC")


@pytest.fixture
def door(whole_server: ServerProcess):
    with whole_server.client() as client:
        client.create(HALL)
        yield client
        client.delete("tuned")


def refusal(call) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.code == "INVALID_ARGUMENT"
    assert "\n" not in caught.value.sentence
    return caught.value.sentence


def tuned(client: Client) -> AlertTuning:
    return client.get("tuned").config.alerts


def test_a_close_threshold_above_the_open_one_is_refused_wherever_that_comes_from(
    door: Client,
) -> None:
    high = AlertTuning(close_threshold=0.7)
    sentence = refusal(lambda: door.update("tuned", StreamChange(policy=high)))
    assert sentence == (
        "close_threshold (0.7) must be at most the open threshold, which is 0.6 here; "
        "lower the one or raise the other"
    )
    door.update("tuned", StreamChange(open_threshold=0.8, policy=high))
    assert "is 0.6 here" in refusal(lambda: door.update("tuned", StreamChange(open_threshold=0.6)))
    bundle_threshold = door.model().threshold
    assert bundle_threshold < 0.7
    back = StreamChange(bundle_threshold=True)
    assert f"is {bundle_threshold:g} here" in refusal(lambda: door.update("tuned", back))
    new = replace(HALL, stream_id="new", open_threshold=None, alerts=high)
    assert f"is {bundle_threshold:g} here" in refusal(lambda: door.create(new))
    assert door.get("tuned").config.open_threshold == 0.8
    assert [view.config.stream_id for view in door.list()].count("new") == 0


def test_a_mask_may_name_one_field_of_the_policy(door: Client) -> None:
    door.update("tuned", StreamChange(policy=AlertTuning(0.2, 1.0, 2.0, 60.0, 30.0)))
    request = stream_pb2.UpdateStreamRequest(
        stream=stream_pb2.Stream(
            name="streams/tuned",
            alert_policy=stream_pb2.AlertPolicy(
                merge_gap=Duration(seconds=9), cooldown=Duration(seconds=99)
            ),
        ),
        update_mask=FieldMask(paths=["alert_policy.merge_gap", "alert_policy.close_threshold"]),
    )
    door._ask(door._streams.UpdateStream, request)
    assert tuned(door) == AlertTuning(None, 1.0, 9.0, 60.0, 30.0)
    request.update_mask.paths[:] = ["alert_policy"]
    door._ask(door._streams.UpdateStream, request)
    assert tuned(door) == AlertTuning(merge_gap_seconds=9.0, cooldown_seconds=99.0)
    request.update_mask.paths[:] = ["alert_policy.mergegap"]
    sentence = refusal(lambda: door._ask(door._streams.UpdateStream, request))
    assert "'alert_policy.mergegap' cannot be changed" in sentence


def test_of_two_clients_at_once_neither_undoes_the_others_field(
    door: Client, whole_server: ServerProcess
) -> None:
    def tune(field: str) -> None:
        with whole_server.client() as client:
            for value in range(1, 16):
                change = StreamChange(policy=AlertTuning(**{field: float(value)}))
                client.update("tuned", change)

    fields = ("min_duration_seconds", "merge_gap_seconds", "cooldown_seconds")
    threads = [threading.Thread(target=tune, args=(field,)) for field in fields]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert tuned(door) == AlertTuning(**dict.fromkeys(fields, 15.0))


def test_quiet_hours_and_snooze_change_by_themselves(door: Client) -> None:
    door.update("tuned", StreamChange(quiet_hours=(NIGHT,), snooze_until_seconds=4e9))
    assert tuned(door) == AlertTuning(quiet_hours=(NIGHT,), snooze_until_seconds=4e9)
    door.update("tuned", StreamChange(end_snooze=True))
    assert tuned(door) == AlertTuning(quiet_hours=(NIGHT,))
    door.update("tuned", StreamChange(quiet_hours=()))
    assert tuned(door) == AlertTuning()


def test_sampling_and_priority_change_by_themselves(door: Client) -> None:
    change = StreamChange(
        sampling=OnMotion(7.5), sampling_when_full=EveryNth(4), priority=0, open_threshold=0.7
    )
    config = door.update("tuned", change).config
    assert (config.sampling, config.sampling_when_full) == (OnMotion(7.5), EveryNth(4))
    assert (config.priority, config.open_threshold) == (0, 0.7)
    config = door.update("tuned", StreamChange(sampling=EVERY_WINDOW)).config
    assert (config.sampling, config.sampling_when_full) == (EVERY_WINDOW, EveryNth(4))
    view = door.update("tuned", StreamChange(refuse_when_full=True))
    assert (view.config.sampling_when_full, view.config.priority) == (None, 0)
    assert view.thinned is False
    request = stream_pb2.UpdateStreamRequest(stream=stream_pb2.Stream(name="streams/tuned"))
    request.update_mask.paths[:] = ["priority"]
    door._ask(door._streams.UpdateStream, request)
    assert door.get("tuned").config.priority == 5


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sampling": {"every_nth": 0}}, "stream.sampling.every_nth: nth (0) must be 2 to 64"),
        (
            {"sampling": {"motion": {"still": Duration(nanos=1)}}},
            "stream.sampling.motion: still (1e-09 s) must be 1 to 3600 s",
        ),
        (
            {"sampling": {"motion": {"still": Duration(seconds=5, nanos=-(10**9))}}},
            "stream.sampling.motion.still (5 s, -1000000000 ns) is no duration",
        ),
        ({"sampling_when_full": {}}, "stream: sampling_when_full must leave windows out"),
        ({"priority": 10}, "stream: priority (10) must be 0 to 9"),
        ({"priority": -1}, "stream: priority (-1) must be 0 to 9"),
    ],
)
def test_a_sampling_or_priority_that_there_is_not_is_refused(
    door: Client, fields: dict[str, Any], sentence: str
) -> None:
    request = stream_pb2.UpdateStreamRequest(
        stream=stream_pb2.Stream(name="streams/tuned", **fields),
        update_mask=FieldMask(paths=list(fields)),
    )
    assert refusal(lambda: door._ask(door._streams.UpdateStream, request)).startswith(sentence)
    assert door.get("tuned").config == HALL


@pytest.mark.parametrize(
    "moment", [(10**15, 0), (-(10**15), 0), (0, -5), (0, 10**9), (253_402_300_799, 999_999_999)]
)
def test_a_snooze_until_no_time_at_all_is_refused(door: Client, moment: tuple[int, int]) -> None:
    until = Timestamp(seconds=moment[0], nanos=moment[1])
    request = stream_pb2.UpdateStreamRequest(
        stream=stream_pb2.Stream(name="streams/tuned", snooze_until_time=until)
    )
    sentence = refusal(lambda: door._ask(door._streams.UpdateStream, request))
    assert "snooze_until" in sentence
    assert tuned(door) == AlertTuning()
