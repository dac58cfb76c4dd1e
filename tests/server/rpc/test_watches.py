"""WatchScores and WatchAlerts through a real server on port 0."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from server.alerts import AlertState
from server.rpc.client import Client, ClientError
from server.scoring import DropReason
from server.streams import SourceUrl, StreamConfig
from tests.support.backend import a_score, an_alert
from tests.support.served import Served


@pytest.fixture(autouse=True)
def door(served: Served) -> None:
    served.run(served.backend.create(StreamConfig("door", SourceUrl("rtsp://cam/a"))))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_scores_arrive_as_they_were_published(client: Client, served: Served) -> None:
    published = [
        a_score("door", 0, 0.0),
        a_score("hall", 7, 1.0),
        *(a_score("door", 1 + n, None, reason) for n, reason in enumerate(DropReason)),
    ]
    with client.watch_scores() as watch:
        for score in published:
            served.backend.scores.publish(score)
        received = [next(watch) for _ in published]
    assert [missed for missed, _ in received] == [0] * len(published)
    for (_, score), expected in zip(received, published, strict=True):
        assert score == replace(expected, span=replace(expected.span, arrival_seconds=math.nan))


def test_alerts_arrive_as_they_were_published(client: Client, served: Served) -> None:
    published = [an_alert("door"), an_alert("door", AlertState.CLOSED)]
    with client.watch_alerts("door") as watch:
        for alert in published:
            served.backend.desk.submit(alert)
        received = [next(watch) for _ in published]
    assert [(missed, item.alert) for missed, item in received] == [(0, one) for one in published]


def test_a_watch_of_one_stream_gets_only_its_own(client: Client, served: Served) -> None:
    with client.watch_scores("door") as watch:
        served.backend.scores.publish(a_score("hall", 0))
        served.backend.scores.publish(a_score("door", 5))
        assert next(watch)[1].sequence == 5


def test_a_slow_watcher_is_told_what_it_lost_and_slows_nobody(
    client: Client, served: Served
) -> None:
    # Far more than the capacity of the hub and the windows of HTTP/2 together.
    count = 20_000
    with client.watch_scores() as slow, served.client().watch_scores() as other:
        for sequence in range(count):
            served.backend.scores.publish(a_score("door", sequence))
        served.backend.scores.publish(a_score("hall", 0))
        received = missed = 0
        for lost, score in slow:
            received, missed = received + 1, missed + lost
            if score.stream_id == "hall":
                break
        assert missed > 0
        assert received + missed == count + 1
        while next(other)[1].stream_id != "hall":
            pass


def test_a_cancelled_watch_ends_quietly_and_leaves_the_hub(client: Client, served: Served) -> None:
    watch = client.watch_scores()
    assert served.backend.scores.subscriptions == 1
    threading.Timer(0.05, watch.cancel).start()
    assert list(watch) == []
    eventually(lambda: served.backend.scores.subscriptions == 0)


def test_a_client_that_vanishes_in_full_flow_leaves_the_hub_and_no_noise(
    client: Client, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    watch = client.watch_scores()
    for sequence in range(2000):
        served.backend.scores.publish(a_score("door", sequence))
    next(watch)
    client.close()
    eventually(lambda: served.backend.scores.subscriptions == 0)
    assert caplog.text == ""


def test_the_watch_of_a_deleted_stream_ends_after_its_last_item(
    client: Client, served: Served
) -> None:
    with client.watch_scores("door") as watch, client.watch_scores() as all_streams:
        served.backend.scores.publish(a_score("door", 0))
        client.delete("door")
        assert next(watch)[1].sequence == 0
        with pytest.raises(ClientError, match="stream door was deleted") as caught:
            next(watch)
        assert caught.value.code == "NOT_FOUND"
        assert next(all_streams)[1].sequence == 0
        served.backend.scores.publish(a_score("hall", 0))
        assert next(all_streams)[1].stream_id == "hall"


def test_an_unknown_stream_cannot_be_watched(client: Client, served: Served) -> None:
    for watch in (client.watch_scores("ghost"), client.watch_alerts("ghost")):
        with pytest.raises(ClientError) as caught:
            next(watch)
        assert caught.value.code == "NOT_FOUND"
    eventually(lambda: served.backend.scores.subscriptions == 0)


def test_a_malformed_stream_cannot_be_watched(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        next(client.watch_scores("Door"))
    assert caught.value.code == "INVALID_ARGUMENT"


def test_watchers_are_bounded_and_a_place_is_free_again(client: Client, served: Served) -> None:
    watches = [client.watch_alerts() for _ in range(8)]
    with pytest.raises(ClientError, match="all 8 places") as caught:
        next(client.watch_alerts())
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    watches[0].cancel()
    eventually(lambda: served.backend.desk.changed.subscriptions == 7)
    with client.watch_alerts() as watch:
        served.backend.desk.submit(an_alert("door"))
        assert next(watch)[1].alert.stream_id == "door"
