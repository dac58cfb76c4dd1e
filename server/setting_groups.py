"""Groups of settings, each with the values that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from server.alerts import (
    CLOSE_RATIO,
    COOLDOWN_SECONDS,
    MAX_DURATION_SECONDS,
    MERGE_GAP_SECONDS,
    MIN_DURATION_SECONDS,
    AlertDefaults,
)
from server.delivery.receivers import BrokerUrl, ReceiverError, WebhookUrl
from server.engine.flags import Device, EngineName
from server.evidence.rules import EvidenceRules
from server.ingest.access import LOOPBACK, Network
from server.ingest.settings import MAX_PIXELS
from server.logs import LogFormat
from server.tuning import LONGEST_SECONDS, LONGEST_SHORT_SECONDS, EvidenceMode

if TYPE_CHECKING:
    from server.batcher import BatchSettings as BatchValues


class Group(BaseModel):
    """Settings that belong together: frozen, and no key that is not one of them."""

    # Forbidding extra keys is a second net; `_refuse_unknown` has the better sentence.
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        # Pydantic would take `port = true` for port 1.
        wanted = info.field_name and cls.model_fields[info.field_name].annotation is bool
        if isinstance(value, bool) and not wanted:
            raise PydanticCustomError("boolean", "Input should not be true or false")
        return value


def _split_commas(value: object) -> object:
    # Flags and the environment have no lists; TOML hands over real ones.
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    # Otherwise a network could be given as the number of its address.
    if isinstance(value, list) and not all(isinstance(part, str) for part in value):
        raise PydanticCustomError("list_of_text", "Input should be a list of text")
    return value


def _refuse_no_path(value: object) -> object:
    # An empty text would stand for the working directory.
    if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
        return value
    raise PydanticCustomError("directory", "Input should be the path of a directory")


def _refuse_no_file(value: object) -> object:
    if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
        return value
    raise PydanticCustomError("file", "Input should be the path of a file")


Port = Annotated[int, Field(ge=0, le=65535)]
Host = Annotated[str, Field(min_length=1)]
Directory = Annotated[Path, BeforeValidator(_refuse_no_path)]
File = Annotated[Path, BeforeValidator(_refuse_no_file)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
_Short = Annotated[float, Field(ge=0, le=LONGEST_SHORT_SECONDS, allow_inf_nan=False)]


class GrpcSettings(Group):
    """The gRPC port.

    Attributes:
        host: address to listen on; loopback by default, since there is no authentication.
        port: 0 takes any free one.
        max_watchers: watch calls at a time, for scores and for alerts each.
        watch_backlog: messages a watcher may lag behind before it loses the oldest.
    """

    host: Host = "127.0.0.1"
    port: Port = 50051
    max_watchers: Annotated[int, Field(ge=1, le=10000)] = 100
    watch_backlog: Annotated[int, Field(ge=1, le=100000)] = 256


class HttpSettings(Group):
    """The side port with metrics and health; port 0 takes any free one."""

    host: Host = "127.0.0.1"
    port: Port = 9464


class EngineSettings(Group):
    """What runs the bundle's graphs; what was asked for runs, or the server does not start.

    Attributes:
        name: the engine.
        device: where the encoder runs; None takes the CPU in ONNX Runtime, the GPU in TensorRT.
        threads: CPU threads of ONNX Runtime's encoder; None takes what a trial at the start finds.
        build: build a plan for TensorRT where there is none for this GPU and version, which
            takes minutes; otherwise such a start is refused.
        plans: folder of TensorRT's plans; None takes `engines` in the bundle.
        preferred_batch: windows of the run that TensorRT's plan is fastest at; None takes
            `batch.max_batch`, also where that is less.
    """

    name: EngineName = "onnxruntime"
    device: Device | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    build: bool = True
    plans: Directory | None = None
    preferred_batch: Annotated[int, Field(ge=1, le=256)] | None = None

    @property
    def wanted_device(self) -> Literal["cpu", "cuda"]:
        """Where the encoder shall run, also where that is left to the engine."""
        return self.device or ("cpu" if self.name == "onnxruntime" else "cuda")


class CapacitySettings(Group):
    """How many streams the server holds, by what they are measured to take.

    Attributes:
        admission: enforce refuses a stream that no longer fits; off takes every one.
        share: part of the cores, and of the engine's time, that all streams together may take;
            at 0.95 of two cores p99 latency was measured at 0.3 to 0.6 s.
        cores: that the server may use; None takes those that it may run on, or the quota of its
            container. Less where others share the machine.
    """

    admission: Literal["enforce", "off"] = "enforce"
    share: Annotated[float, Field(gt=0, le=1)] = 0.95
    cores: Annotated[float, Field(gt=0, le=1024)] | None = None


LARGEST_BATCH = 8


class BatchSettings(Group):
    """How windows of several streams share one run of the encoder.

    Attributes:
        max_batch: windows of one run; None takes 8, or fewer where the trial at the start finds
            that a window then takes less of the CPU.
        max_wait_ms: how long after it came a window may wait for others, in milliseconds.
    """

    max_batch: Annotated[int, Field(ge=1, le=256)] | None = None
    max_wait_ms: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 5

    @property
    def largest(self) -> int:
        """Windows of the largest run that may be."""
        return self.max_batch or LARGEST_BATCH

    def to_values(self, most: int) -> BatchValues:
        """The same in the batcher's own type, for runs of `most` windows."""
        # Only now: the batcher brings the inference engine along, which takes a while.
        from server.batcher import BatchSettings as BatchValues

        return BatchValues(most, self.max_wait_ms / 1000)


class IngestSettings(Group):
    """Decode workers and how patient they are with a camera.

    Attributes:
        workers: decode processes, which share the streams out; None takes one a core, at least two.
        open_timeout_seconds: a camera that has not answered by then has timed out.
        read_timeout_seconds: a connected camera without a frame for so long is stale.
        backoff_first_seconds: the longest wait before the first retry.
        backoff_max_seconds: the longest wait before any retry.
        stable_seconds: frames for so long set the waits back to the first.
        hang_seconds: a worker without a sign of life for so long is replaced.
        max_pixels: of a pushed frame; a larger one is refused before it is decoded.
        worker_memory_mb: a worker that holds more memory, in MB, is replaced; it needs 55, and
            about 20 for each 1080p stream, 15 more where evidence is kept of it, and more where a
            camera uses many reference frames.
    """

    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    open_timeout_seconds: Seconds = 5
    read_timeout_seconds: Seconds = 5
    backoff_first_seconds: Seconds = 1
    backoff_max_seconds: Seconds = 30
    stable_seconds: Seconds = 60
    hang_seconds: Seconds = 2.5
    max_pixels: Annotated[int, Field(ge=256, le=2**30)] = MAX_PIXELS
    worker_memory_mb: Annotated[int, Field(ge=1, le=1_000_000)] = 2048


class PushSettings(Group):
    """What clients that push video may do.

    Attributes:
        max_message_mb: size of one message, in MiB; a raw 1080p frame has 6.
        max_calls_per_client: open calls of one network address.
        max_frames_per_second: frames within one second of their own times.
        idle_seconds: a call ends where the client sends no frame, or reads no
            score, for so long.
    """

    max_message_mb: Annotated[int, Field(ge=1, le=256)] = 16
    max_calls_per_client: Annotated[int, Field(ge=1, le=10000)] = 16
    max_frames_per_second: Annotated[int, Field(ge=1, le=10000)] = 240
    idle_seconds: Seconds = 30


class AccessSettings(Group):
    """What stream URLs may point at; anything else is refused.

    Attributes:
        file_roots: directories below which `file://` is allowed; none by default.
        camera_networks: networks that cameras are pulled from; None allows every
            address but link-local ones, where clouds keep their credentials.
        listen_networks: addresses that LISTEN streams may bind to.
    """

    file_roots: Annotated[tuple[Directory, ...], BeforeValidator(_split_commas)] = ()
    camera_networks: Annotated[tuple[Network, ...] | None, BeforeValidator(_split_commas)] = None
    listen_networks: Annotated[tuple[Network, ...], BeforeValidator(_split_commas)] = LOOPBACK


class AlertSettings(Group):
    """How scores become alerts on a stream that is not tuned; all in capture time.

    Attributes:
        close_ratio: an alert begins to end below this part of its open threshold (hysteresis).
        min_duration_seconds: that an event must span to become an alert.
        merge_gap_seconds: scores stay low for so long before an alert ends.
        max_duration_seconds: a longer alert is ended and continued by another.
        cooldown_seconds: after the end of a delivered alert, in which none is delivered.
    """

    close_ratio: Annotated[float, Field(gt=0, le=1)] = CLOSE_RATIO
    min_duration_seconds: _Short = MIN_DURATION_SECONDS
    merge_gap_seconds: _Short = MERGE_GAP_SECONDS
    max_duration_seconds: Annotated[float, Field(ge=1, le=LONGEST_SECONDS, allow_inf_nan=False)] = (
        MAX_DURATION_SECONDS
    )
    cooldown_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)] = (
        COOLDOWN_SECONDS
    )

    def to_values(self) -> AlertDefaults:
        """The same in the state machine's own type."""
        return AlertDefaults(**self.model_dump())


class EvidenceSettings(Group):
    """What is kept of the pictures around an alert, and for how long.

    Attributes:
        mode: of streams that say nothing themselves: keep (snapshot and clip), blur (a snapshot
            too coarse to know anybody by) or none.
        directory: where the files go; None takes one beside the store, and keeps nothing where
            the store is in memory.
        pre_roll_seconds: of a clip before the alert.
        post_roll_seconds: of a clip after it.
        max_clip_mb: a clip ends when it has grown so large, in MB.
        max_days: older evidence is deleted.
        max_mb: the oldest is deleted where all of it takes more, in MB.
        min_free_mb: nothing new is kept while the disk has less room, in MB.
    """

    mode: Literal["keep", "blur", "none"] = "keep"
    directory: Directory | None = None
    pre_roll_seconds: Annotated[float, Field(ge=0, le=120, allow_inf_nan=False)] = 5
    post_roll_seconds: Annotated[float, Field(ge=0, le=120, allow_inf_nan=False)] = 5
    max_clip_mb: Annotated[int, Field(ge=1, le=100_000)] = 256
    max_days: Annotated[float, Field(gt=0, le=36500, allow_inf_nan=False)] = 30
    max_mb: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10_000
    min_free_mb: Annotated[int, Field(ge=0, le=1_000_000_000)] = 500

    def to_rules(self, store_url: str) -> EvidenceRules:
        """The same in the keeper's own type."""
        # Only now: it brings SQLAlchemy along.
        from server.evidence.place import beside

        given = self.model_dump() | {"mode": EvidenceMode(self.mode)}
        return EvidenceRules(**given | {"directory": self.directory or beside(store_url)})


class StoreSettings(Group):
    """Where streams and alerts are kept.

    Attributes:
        url: SQLAlchemy URL, SQLite or PostgreSQL. It may hold a password, so it is never shown;
            `store.url_file` names a file that holds it.
        alert_days: alerts that did not change for so many days are deleted; 0 keeps them for ever.
    """

    # repr=False: settings get logged.
    url: Annotated[str, Field(min_length=1, repr=False)] = "sqlite:///gvvad.db"
    alert_days: Annotated[float, Field(ge=0, le=36500, allow_inf_nan=False)] = 90


def _webhook_urls(value: object) -> object:
    urls = _split_commas(value)
    if not isinstance(urls, list | tuple):
        return urls
    try:
        parsed = [url if isinstance(url, WebhookUrl) else WebhookUrl(url) for url in urls]
    except ReceiverError as error:
        raise PydanticCustomError("receiver", "{why}", {"why": str(error)}) from None
    names = [url.sink for url in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PydanticCustomError(
            "receiver", "{why}", {"why": f"it names {twice} twice; give each path once"}
        )
    return parsed


def _broker_url(value: object) -> object:
    try:
        return BrokerUrl(value) if isinstance(value, str) else value
    except ReceiverError as error:
        raise PydanticCustomError("receiver", "{why}", {"why": str(error)}) from None


# What a reader of several servers' events tells them apart by: a URI or a path.
EventSource = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
Topic = Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*$", max_length=100)]
Hours = Annotated[float, Field(gt=0, le=24 * 365, allow_inf_nan=False)]


class WebhookSettings(Group):
    """HTTP receivers of every change of an alert, as CloudEvents.

    Attributes:
        urls: http:// or https:// URLs; one with a comma in it writes %2C.
        secret_file: secrets that sign, one a line, `whsec_` and base64 or any other text; all
            of them sign, so that a new one can stand beside an old one for a while.
        ca_file: certificates in PEM that are believed; None takes the system's.
        source: the server's name in events, a URI or path, never to change.
        timeout_seconds: of one attempt.
        max_age_hours: after so long a delivery is given up, to be replayed by hand.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    urls: Annotated[tuple[WebhookUrl, ...], BeforeValidator(_webhook_urls)] = ()
    secret_file: File | None = None
    ca_file: File | None = None
    source: EventSource = "/gvvad"
    timeout_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10
    max_age_hours: Hours = 24


class MqttSettings(Group):
    """An MQTT broker that gets every change of an alert and every stream's state.

    Attributes:
        url: mqtt:// or mqtts:// with user and host; None for no broker.
        password_file: file with the user's password.
        ca_file: certificates in PEM that are believed; None takes the system's.
        client_id: empty takes one of the topic prefix and this machine's name.
        topic_prefix: of all topics; no two servers of a broker may share one.
        source: the server's name in events, a URI or path, never to change.
        timeout_seconds: for the broker to acknowledge.
        max_age_hours: after so long a delivery is given up, to be replayed by hand.
        discovery_prefix: what Home Assistant listens to; empty tells it of no stream.
        device_class: of Home Assistant's binary sensors.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    url: Annotated[BrokerUrl | None, BeforeValidator(_broker_url)] = None
    password_file: File | None = None
    ca_file: File | None = None
    client_id: Annotated[str, Field(max_length=100)] = ""
    topic_prefix: Topic = "gvvad"
    source: EventSource = "/gvvad"
    timeout_seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10
    max_age_hours: Hours = 24
    discovery_prefix: Topic | Literal[""] = "homeassistant"
    device_class: Literal["motion", "problem", "safety"] = "safety"


class HistorySettings(Group):
    """What is kept of the streams' scores, for calibrations.

    Attributes:
        days: scores are kept for so long.
        max_mb: of one stream, in MiB as stored; two weeks of a camera take about 4.
        flush_seconds: scores are written at least so often; a kill loses what came since.
        check_seconds: scores are held against their calibration so often.
    """

    days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 14
    max_mb: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 8
    flush_seconds: Seconds = 60
    check_seconds: Seconds = 300


class LogSettings(Group):
    """What the server writes to standard error.

    Attributes:
        level: the least that is written.
        format: lines for people, or one JSON object a line.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: LogFormat = "plain"
