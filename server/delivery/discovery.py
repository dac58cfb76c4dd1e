"""What Home Assistant is told of a stream, so that it shows up there by itself; pure.

One device a stream with an alarm and the peak of its newest alert, in the layout of
Home Assistant's device discovery (2024.11 and later).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.metadata import version

ON, OFF = "ON", "OFF"
ONLINE, OFFLINE = "online", "offline"


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics.

    Attributes:
        prefix: of all topics of this server.
        discovery_prefix: that Home Assistant listens to.
    """

    prefix: str
    discovery_prefix: str

    @property
    def status(self) -> str:
        """`online` or `offline`, retained."""
        return f"{self.prefix}/status"

    def alert(self, stream_id: str) -> str:
        """`ON` while an alert goes on, else `OFF`; retained."""
        return f"{self.prefix}/{stream_id}/alert"

    def attributes(self, stream_id: str) -> str:
        """The newest alert as JSON, retained."""
        return f"{self.prefix}/{stream_id}/attributes"

    def event(self, stream_id: str) -> str:
        """Every change of an alert as a CloudEvent, not retained."""
        return f"{self.prefix}/{stream_id}/event"

    def discovery(self, stream_id: str) -> str:
        """What Home Assistant is told of the stream, retained."""
        return f"{self.discovery_prefix}/device/{self.device(stream_id)}/config"

    def device(self, stream_id: str) -> str:
        """Home Assistant's id of the stream's device.

        >>> Topics("site/gvvad", "homeassistant").device("door")
        'site_gvvad_door'
        """
        return f"{re.sub('[^a-zA-Z0-9_-]', '_', self.prefix)}_{stream_id}"

    def stream_of(self, topic: str) -> str | None:
        """The stream that an alert topic belongs to; None where it is no such topic."""
        head, tail = f"{self.prefix}/", "/alert"
        if not (topic.startswith(head) and topic.endswith(tail)):
            return None
        return topic[len(head) : -len(tail)]


def discovery_message(topics: Topics, stream_id: str, device_class: str) -> str:
    """The stream's discovery message.

    Source: home-assistant.io/integrations/mqtt, MQTT discovery.
    """
    device = topics.device(stream_id)
    attributes = topics.attributes(stream_id)
    alarm = {
        "platform": "binary_sensor",
        "unique_id": f"{device}_alert",
        "name": "Alert",
        "device_class": device_class,
        "state_topic": topics.alert(stream_id),
        "json_attributes_topic": attributes,
    }
    peak = {
        "platform": "sensor",
        "unique_id": f"{device}_peak",
        "name": "Newest alert's peak score",
        "icon": "mdi:gauge",
        "state_topic": attributes,
        "value_template": "{{ value_json.peak_score | round(3) }}",
    }
    software = {"sw_version": version("gvvad")}
    return json.dumps(
        {
            "device": software
            | {"identifiers": [device], "name": stream_id, "manufacturer": "gvvad"},
            "origin": software | {"name": "gvvad"},
            "components": {"alert": alarm, "peak": peak},
            "availability_topic": topics.status,
            "qos": 1,
        }
    )
