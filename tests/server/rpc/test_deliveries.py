"""Deliveries over gRPC and on the command line, with real ones in a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from server.alert_records import ChangeKind
from server.cli import main
from server.delivery_records import DeliveryFilter, DeliveryState
from server.rpc.client import ClientError
from server.store.database import Database
from tests.support.alert_rows import an_alert
from tests.support.backend import MemoryBackend
from tests.support.delivering import Delivering, delivering, webhook
from tests.support.served import Served, serving
from tests.support.webhook_receiver import receiving, says, well


@pytest.fixture
def running() -> Iterator[Delivering]:
    """Three deliveries that were given up, to a receiver that is well from now on."""
    database = Database("sqlite://")
    behaviours = [*[says(410)] * 3, well]
    with (
        receiving(*behaviours) as receiver,
        delivering(database, webhook(receiver.url)) as running,
    ):
        for sequence in range(3):
            running.append(ChangeKind.OPENED, an_alert(sequence=sequence))
        running.wait_for_states("dead", "dead", "dead")
        yield running
    database.close()


@pytest.fixture
def served(running: Delivering) -> Iterator[Served]:
    with serving(running.run, MemoryBackend(), running.deliveries) as served:
        yield served


def test_deliveries_are_listed_as_they_are_kept(running: Delivering, served: Served) -> None:
    kept = running.list()
    shown = served.client().deliveries(DeliveryFilter(), 200)
    assert [(one.delivery_id, one.event_id, one.error) for one in shown] == [
        (one.delivery_id, one.event_id, one.error) for one in kept
    ]
    assert {one.due_seconds for one in shown} == {None}
    assert served.client().deliveries(DeliveryFilter(DeliveryState.PENDING), 200) == []
    assert len(served.client().deliveries(DeliveryFilter(), 2)) == 2


def test_what_was_given_up_is_replayed(running: Delivering, served: Served) -> None:
    client, (newest, *_) = served.client(), running.list()
    assert client.replay([newest.delivery_id, 10**17], None) == 1
    running.wait_for_states("dead", "dead", "delivered")
    assert client.replay([], newest.sink) == 2
    running.wait_for_states("delivered", "delivered", "delivered")
    assert client.replay([], None) == 0


def test_a_replay_to_a_receiver_that_is_none_is_refused(served: Served) -> None:
    with pytest.raises(ClientError, match="must be one of: webhook:localhost") as caught:
        served.client().replay([], "webhook:elsewhere")
    assert caught.value.code == "INVALID_ARGUMENT"


def test_the_command_line_lists_and_replays(
    running: Delivering, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ["--server", served.address]
    assert main(["deliveries", "list", "--state", "dead", *server]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "CREATED", "SINK", "EVENT", "STATE", "ATTEMPTS", "ERROR"]
    assert len(lines) == 3
    assert lines[0].endswith("  dead   1         answered 410 Gone: it wants no more events")
    assert main(["deliveries", "list", "--limit", "1", "--json", *server]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["state"], one["attempts"], one["next_attempt_time"]) == ("dead", 1, None)
    assert main(["deliveries", "replay", str(one["id"]), *server]) == 0
    assert capsys.readouterr().out == "1 replayed\n"
    assert main(["deliveries", "replay", "--all", "--json", *server]) == 0
    assert json.loads(capsys.readouterr().out) == {"replayed": 2}
    running.wait_for_states("delivered", "delivered", "delivered")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["replay"], "nothing to replay; give"),
        (["replay", "1", "--all"], "exclude each other"),
        (["replay", "one"], "must be a whole number"),
        (["list", "--state", "lost"], "invalid choice"),
    ],
)
def test_arguments_that_make_no_sense_are_one_line(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deliveries", *arguments]) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1
