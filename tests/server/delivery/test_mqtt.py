"""MQTT, against Debian's mosquitto."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.alert_records import ChangeKind
from server.delivery.discovery import Topics, discovery_message
from server.store.database import Database
from server.streams import PUSHED, SourceUrl, StreamConfig
from tests.support.alert_rows import add_stream, an_alert, closed, remove_stream
from tests.support.delivering import delivering, eventually, mqtt
from tests.support.mosquitto import Mosquitto, listening
from tests.support.serving import ServerProcess

pytestmark = pytest.mark.mosquitto

STATE, ATTRIBUTES, EVENT = "gvvad/door/alert", "gvvad/door/attributes", "gvvad/door/event"
STATUS, DISCOVERY = "gvvad/status", "homeassistant/device/gvvad_door/config"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def door(database: Database) -> Database:
    add_stream(database, "door")
    return database


def test_a_stream_shows_up_and_its_alert_goes_on_and_off(door: Database, broker: Mosquitto) -> None:
    with listening(broker) as heard, delivering(door, None, mqtt(broker.url)) as running:
        heard.wait_for_newest(STATUS, "online")
        assert heard.retained[STATE] == "OFF"
        assert DISCOVERY in heard.retained
        assert [topic for topic, _ in heard.messages][-1] == STATUS, "state before availability"
        alert = an_alert()
        running.append(ChangeKind.OPENED, alert)
        heard.wait_for_newest(STATE, "ON")
        assert json.loads(heard.retained[ATTRIBUTES])["state"] == "open"
        running.append(ChangeKind.CLOSED, closed(alert))
        heard.wait_for_newest(STATE, "OFF")
        running.wait_for_states("delivered", "delivered")
        assert json.loads(heard.retained[ATTRIBUTES])["end_reason"] == "score_fell"
        events = [json.loads(payload) for payload in heard.of(EVENT)]
        assert [event["id"] for event in events] == [
            f"{alert.alert_id}.opened",
            f"{alert.alert_id}.closed",
        ]
        assert events[1]["data"]["window_scores"] == [0.625, None, 0.875]
    with listening(broker) as later:
        later.wait_for_newest(STATUS, "offline")
        later.wait_for_newest(STATE, "OFF")
        assert later.of(EVENT) == [], "an event is not retained"


def test_home_assistant_is_told_of_a_stream_with_every_topic_in_use(
    door: Database, broker: Mosquitto
) -> None:
    settings = mqtt(broker.url, topic_prefix="site/cameras", device_class="motion")
    with listening(broker) as heard, delivering(door, None, settings) as running:
        heard.wait_for_newest("site/cameras/status", "online")
        running.append(ChangeKind.OPENED, an_alert())
        heard.wait_for_newest("site/cameras/door/alert", "ON")
        message = json.loads(heard.retained["homeassistant/device/site_cameras_door/config"])
        assert set(message) == {"device", "origin", "components", "availability_topic", "qos"}
        assert message["origin"]["name"] == "gvvad"
        assert message["device"]["identifiers"] == ["site_cameras_door"]
        assert message["availability_topic"] in heard.retained
        alarm, peak = message["components"]["alert"], message["components"]["peak"]
        assert (alarm["platform"], alarm["device_class"]) == ("binary_sensor", "motion")
        assert peak["platform"] == "sensor"
        assert alarm["unique_id"] != peak["unique_id"]
        assert heard.retained[alarm["state_topic"]] == "ON"
        assert json.loads(heard.retained[alarm["json_attributes_topic"]])["stream"]
        assert json.loads(heard.retained[peak["state_topic"]])["peak_score"] == 0.875


def test_an_empty_discovery_prefix_tells_home_assistant_nothing(
    door: Database, broker: Mosquitto
) -> None:
    settings = mqtt(broker.url, discovery_prefix="")
    with listening(broker) as heard, delivering(door, None, settings):
        heard.wait_for_newest(STATUS, "online")
        assert {topic.split("/")[0] for topic in heard.retained} == {"gvvad"}


def test_streams_come_and_go_while_the_server_runs(door: Database, broker: Mosquitto) -> None:
    with listening(broker) as heard, delivering(door, None, mqtt(broker.url)) as running:
        heard.wait_for_newest(STATUS, "online")
        add_stream(door, "yard")
        heard.wait_for_newest("gvvad/yard/alert", "OFF")
        running.append(ChangeKind.OPENED, an_alert("door"))
        heard.wait_for_newest(STATE, "ON")
        remove_stream(door, "door")
        heard.wait_for(lambda found: not {STATE, ATTRIBUTES, DISCOVERY} & set(found.retained))
        assert heard.retained["gvvad/yard/alert"] == "OFF"
        # One that is there for a single push is heard of, and leaves nothing behind.
        running.append(ChangeKind.OPENED, an_alert("guest"))
        heard.wait_for(lambda found: found.of("gvvad/guest/event") != [])
        running.wait_for_states("delivered", "delivered")
        assert "gvvad/guest/alert" not in heard.retained


def test_a_stream_that_went_while_the_server_was_away_is_forgotten(
    door: Database, broker: Mosquitto
) -> None:
    with delivering(door, None, mqtt(broker.url)) as running:
        running.append(ChangeKind.OPENED, an_alert("door"))
        running.wait_for_states("delivered")
    remove_stream(door, "door")
    add_stream(door, "yard")
    with listening(broker) as heard, delivering(door, None, mqtt(broker.url)):
        heard.wait_for_newest("gvvad/yard/alert", "OFF")
        heard.wait_for(lambda found: not {STATE, ATTRIBUTES, DISCOVERY} & set(found.retained))


def test_a_broker_that_goes_and_comes_back_gets_what_it_missed(
    door: Database, broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second = an_alert(sequence=1), an_alert(sequence=2)
    with listening(broker) as heard, delivering(door, None, mqtt(broker.url)) as running:
        running.append(ChangeKind.OPENED, first)
        running.wait_for_states("delivered")
        broker.stop()
        for alert in (first, second):
            running.append(ChangeKind.CLOSED, closed(alert))
        eventually(lambda: all(one.attempts for one in running.list()), running.list)
        broker.start()
        running.wait_for_states("delivered", "delivered", "delivered")
        heard.wait_for(lambda found: len({*found.of(EVENT)}) == 3)
        heard.wait_for_newest(STATE, "OFF")
        heard.wait_for_newest(STATUS, "online")
    failures = [one for one in caplog.messages if one.startswith("deliveries to ")]
    assert len(failures) == 1, failures


def test_a_server_that_starts_before_its_broker_waits_for_it(
    door: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path)
    with delivering(door, None, mqtt(broker.url)) as running:
        running.append(ChangeKind.OPENED, an_alert())
        eventually(lambda: "refused" in running.list()[0].error, running.list)
        broker.start()
        running.wait_for_states("delivered")
    broker.stop()
    assert "fail: [Errno 111] Connection refused" in caplog.text


def test_a_state_that_is_delivered_late_is_the_one_of_now(
    door: Database, broker: Mosquitto
) -> None:
    alert, newer = an_alert(sequence=1), an_alert(sequence=2)
    with listening(broker) as heard, delivering(door, None, mqtt(broker.url)) as running:
        for kind, state in (
            (ChangeKind.OPENED, alert),
            (ChangeKind.CLOSED, closed(alert)),
            (ChangeKind.OPENED, newer),
        ):
            running.append(kind, state)
        running.wait_for_states("delivered", "delivered", "delivered")
        heard.wait_for_newest(STATE, "ON")
        running.append(ChangeKind.ACKNOWLEDGED, closed(alert))
        heard.wait_for(lambda found: len(found.of(EVENT)) == 4)
        running.wait_for_states(*["delivered"] * 4)
        assert heard.retained[STATE] == "ON"
        assert json.loads(heard.retained[ATTRIBUTES])["alert_id"] == newer.alert_id


def test_a_password_lets_in_and_a_wrong_one_is_named_without_being_shown(
    door: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = Mosquitto(tmp_path, login=("gvvad", "s3cret"))
    broker.start()
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("s3cret\n")
    wrong.write_text("wr0ng")
    with delivering(door, None, mqtt(broker.url, password_file=wrong)) as running:
        running.append(ChangeKind.OPENED, an_alert())
        eventually(lambda: "Not authorized" in running.list()[0].error, running.list)
        assert running.list()[0].error == "the broker refuses us (Not authorized)"
    with listening(broker) as heard:
        with delivering(door, None, mqtt(broker.url, password_file=right)) as running:
            running.wait_for_states("delivered")
        heard.wait_for_newest(STATE, "ON")
    broker.stop()
    assert "s3cret" not in caplog.text
    assert "wr0ng" not in caplog.text


# Paho leaves the socket of a failed handshake to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_is_verified(door: Database, tmp_path: Path, certificate: Path) -> None:
    broker = Mosquitto(tmp_path, certificate=certificate)
    broker.start()
    with delivering(door, None, mqtt(broker.url)) as running:
        running.append(ChangeKind.OPENED, an_alert())
        eventually(lambda: "certificate" in running.list()[0].error.lower(), running.list)
    with listening(broker) as heard:
        with delivering(door, None, mqtt(broker.url, ca_file=certificate)) as running:
            running.wait_for_states("delivered")
        heard.wait_for_newest(STATE, "ON")
    broker.stop()


def test_topics_are_told_apart_from_streams() -> None:
    topics = Topics("site/gvvad", "homeassistant")
    assert topics.stream_of(topics.alert("door")) == "door"
    for other in (topics.status, topics.event("door"), "gvvad/door/alert", "site/gvvad"):
        assert topics.stream_of(other) is None
    assert json.loads(discovery_message(topics, "door", "safety"))["qos"] == 1


@pytest.mark.long
def test_the_broker_says_so_when_a_server_is_killed(broker: Mosquitto, tmp_path: Path) -> None:
    with listening(broker) as heard:
        settings = {"mqtt__url": broker.url, "mqtt__client_id": "gvvad-under-test"}
        with ServerProcess(store=tmp_path / "gvvad.db", **settings) as server:
            heard.wait_for_newest(STATUS, "online")
            with server.client() as client:
                client.create(StreamConfig("door", SourceUrl(PUSHED)))
            heard.wait_for_newest(STATE, "OFF")
            server.process.kill()
            heard.wait_for_newest(STATUS, "offline")
        with ServerProcess(store=tmp_path / "gvvad.db", **settings) as server:
            heard.wait_for_newest(STATUS, "online")
            code, _ = server.terminate()
            assert code == 0
            heard.wait_for_newest(STATUS, "offline")
