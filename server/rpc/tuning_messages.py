"""A stream's tuning to messages and back, checked where a client sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from gvvad.v1 import stream_pb2

from server.calibration import Calibration, CurvePoint
from server.rpc.wire import InvalidError, duration, seconds, timestamp
from server.sampling import DEFAULT_PRIORITY, EVERY_WINDOW, EveryNth, OnMotion, Sampling
from server.tuning import AlertTuning, EvidenceMode, Mask, QuietHours

T = TypeVar("T")
U = TypeVar("U")

_EVIDENCE = {
    item: stream_pb2.EvidenceMode.Value(f"EVIDENCE_MODE_{item.name}") for item in EvidenceMode
}
_EVIDENCE_OF = {value: key for key, value in _EVIDENCE.items()}

_DURATIONS = ("min_duration", "merge_gap", "max_duration", "cooldown")


def write_tuning(
    message: stream_pb2.Stream,
    tuning: AlertTuning,
    evidence_mode: EvidenceMode | None,
    masks: tuple[Mask, ...],
) -> None:
    """Fill in the fields of a stream's tuning."""
    policy = message.alert_policy
    if tuning.close_threshold is not None:
        policy.close_threshold = tuning.close_threshold
    for name in _DURATIONS:
        value: float | None = getattr(tuning, f"{name}_seconds")
        if value is not None:
            getattr(policy, name).CopyFrom(duration(value))
    if not policy.ListFields():
        message.ClearField("alert_policy")
    if tuning.snooze_until_seconds is not None:
        message.snooze_until_time.CopyFrom(timestamp(tuning.snooze_until_seconds))
    message.quiet_hours.extend(
        stream_pb2.QuietHours(
            days=quiet.days, start=quiet.start, end=quiet.end, time_zone=quiet.time_zone
        )
        for quiet in tuning.quiet_hours
    )
    if evidence_mode is not None:
        message.evidence_mode = _EVIDENCE[evidence_mode]
    for mask in masks:
        corners = [stream_pb2.Point(x=x, y=y) for x, y in mask.corners]
        message.masks.add(corners=corners)


def write_change(message: stream_pb2.Stream, tuning: AlertTuning) -> list[str]:
    """Fill in those fields of a stream's tuning that are given.

    Returns:
        Their paths, for the mask of an update.
    """
    write_tuning(message, tuning, None, ())
    policy = [f"alert_policy.{field.name}" for field, _ in message.alert_policy.ListFields()]
    given = {field.name for field, _ in message.ListFields()}
    return policy + [path for path in ("quiet_hours", "snooze_until_time") if path in given]


def alert_tuning(message: stream_pb2.Stream) -> AlertTuning:
    """How a stream's scores become alerts.

    Raises:
        InvalidError: a field cannot be used.
    """
    policy = message.alert_policy
    lengths = {
        f"{name}_seconds": length_seconds(getattr(policy, name), f"stream.alert_policy.{name}")
        for name in _DURATIONS
        if policy.HasField(name)  # type: ignore[arg-type]  # names of its own fields
    }
    quiet = tuple(
        _checked(
            f"stream.quiet_hours[{place}]",
            lambda one: QuietHours(tuple(one.days), one.start, one.end, one.time_zone),
            one,
        )
        for place, one in enumerate(message.quiet_hours)
    )
    snooze_until_seconds = None
    if message.HasField("snooze_until_time"):
        until = message.snooze_until_time
        snooze_until_seconds = _checked("stream.snooze_until_time", seconds, until)
    return _checked(
        "stream.alert_policy",
        lambda found: AlertTuning(
            close_threshold=found.close_threshold if found.HasField("close_threshold") else None,
            quiet_hours=quiet,
            snooze_until_seconds=snooze_until_seconds,
            **lengths,
        ),
        policy,
    )


def evidence_mode(message: stream_pb2.Stream) -> EvidenceMode | None:
    """What is kept of the pictures; None takes the server's default.

    Raises:
        InvalidError: a number that stands for nothing.
    """
    value = message.evidence_mode
    if value == stream_pb2.EVIDENCE_MODE_UNSPECIFIED:
        return None
    if value not in _EVIDENCE_OF:
        names = ", ".join(stream_pb2.EvidenceMode.keys()[1:])
        raise InvalidError(f"stream.evidence_mode ({value}) must be one of {names}")
    return _EVIDENCE_OF[value]


def masks(message: stream_pb2.Stream) -> tuple[Mask, ...]:
    """Regions that the detector never sees.

    Raises:
        InvalidError: one cannot be used.
    """
    return tuple(
        _checked(
            f"stream.masks[{place}]",
            lambda one: Mask(tuple((corner.x, corner.y) for corner in one.corners)),
            one,
        )
        for place, one in enumerate(message.masks)
    )


def write_load(
    message: stream_pb2.Stream,
    rule: Sampling | None,
    rule_when_full: Sampling | None,
    priority: int | None,
) -> None:
    """Fill in what a stream asks of the engine; what is None stays unset."""
    if rule is not None:
        message.sampling.CopyFrom(sampling_message(rule))
    if rule_when_full is not None:
        message.sampling_when_full.CopyFrom(sampling_message(rule_when_full))
    if priority is not None:
        message.priority = priority


def sampling_message(rule: Sampling) -> stream_pb2.Sampling:
    """Which windows of a stream are scored."""
    match rule:
        case EveryNth():
            return stream_pb2.Sampling(every_nth=rule.n)
        case OnMotion():
            still = duration(rule.still_seconds)
            return stream_pb2.Sampling(motion=stream_pb2.MotionSampling(still=still))
        case _:
            return stream_pb2.Sampling()


def sampling(message: stream_pb2.Sampling, field: str) -> Sampling:
    """Which windows are scored, by what a client sent in `field`.

    Raises:
        InvalidError: a rule that cannot be used.
    """
    match message.WhichOneof("rule"):
        case "every_nth":
            return _checked(f"{field}.every_nth", EveryNth, message.every_nth)
        case "motion" if message.motion.HasField("still"):
            still_seconds = length_seconds(message.motion.still, f"{field}.motion.still")
            return _checked(f"{field}.motion", OnMotion, still_seconds)
        case "motion":
            return OnMotion()
    return EVERY_WINDOW


def sampling_when_full(message: stream_pb2.Stream) -> Sampling | None:
    """Which windows are scored where the server is full; None where the stream is refused then.

    Raises:
        InvalidError: a rule that cannot be used.
    """
    if not message.HasField("sampling_when_full"):
        return None
    return sampling(message.sampling_when_full, "stream.sampling_when_full")


def priority(message: stream_pb2.Stream) -> int:
    """Whose windows come first."""
    return message.priority if message.HasField("priority") else DEFAULT_PRIORITY


def calibration_message(found: Calibration) -> stream_pb2.Calibration:
    """A calibration as the API shows it."""
    return stream_pb2.Calibration(
        open_threshold=found.open_threshold,
        false_alarms_per_day=found.false_alarms_per_day,
        watched=duration(found.watched_seconds),
        events=found.events,
        low_per_day=found.low_per_day,
        high_per_day=found.high_per_day,
        measurable=found.measurable,
        message=found.message,
        applied=found.applied,
        bundle_id=found.bundle_id,
        create_time=timestamp(found.made_seconds),
        drift=found.drift,
        recalibration_proposed=bool(found.proposal),
        proposal=found.proposal,
        held_out_per_day=found.held_out_per_day,
        curve=[
            stream_pb2.CalibrationPoint(threshold=point.threshold, events=point.events)
            for point in found.curve
        ],
    )


def calibration(message: stream_pb2.Calibration) -> Calibration:
    """A calibration as the API showed it; it has no reference counts."""
    return Calibration(
        bundle_id=message.bundle_id,
        open_threshold=message.open_threshold,
        false_alarms_per_day=message.false_alarms_per_day,
        watched_seconds=message.watched.ToMicroseconds() / 1e6,
        events=message.events,
        low_per_day=message.low_per_day,
        high_per_day=message.high_per_day,
        measurable=message.measurable,
        message=message.message,
        made_seconds=seconds(message.create_time),
        applied=message.applied,
        drift=message.drift if message.HasField("drift") else None,
        proposal=message.proposal,
        held_out_per_day=(
            message.held_out_per_day if message.HasField("held_out_per_day") else None
        ),
        curve=tuple(CurvePoint(point.threshold, point.events) for point in message.curve),
    )


def length_seconds(message: Duration, field: str) -> float:
    """A length of time that a client sent in `field`.

    Raises:
        InvalidError: it breaks the rules of its type.
    """
    # A message that breaks the rules of its own type turns into nonsense, not into an error.
    if not -315_576_000_000 <= message.seconds <= 315_576_000_000 or abs(message.nanos) >= 10**9:
        raise InvalidError(
            f"{field} ({message.seconds} s, {message.nanos} ns) is no duration; "
            "expected seconds and less than a second's nanoseconds"
        )
    return message.seconds + message.nanos / 1e9


def _checked(field: str, make: Callable[[T], U], given: T) -> U:
    try:
        return make(given)
    except ValueError as error:
        raise InvalidError(f"{field}: {error}") from None
