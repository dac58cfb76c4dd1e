import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_OVERLOAD: _ClassVar[DropReason]
    DROP_REASON_BACKLOG: _ClassVar[DropReason]
    DROP_REASON_ENGINE: _ClassVar[DropReason]
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_OVERLOAD: DropReason
DROP_REASON_BACKLOG: DropReason
DROP_REASON_ENGINE: DropReason

class WatchScoresRequest(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: str
    def __init__(self, stream: _Optional[str] = ...) -> None: ...

class WatchScoresResponse(_message.Message):
    __slots__ = ("score", "missed")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    score: WindowScore
    missed: int
    def __init__(self, score: _Optional[_Union[WindowScore, _Mapping]] = ..., missed: _Optional[int] = ...) -> None: ...

class WindowScore(_message.Message):
    __slots__ = ("stream", "sequence", "window_number", "first_frame", "end_frame", "start_time", "end_time", "score", "drop_reason", "latency", "bundle_id")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_NUMBER_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_FIELD_NUMBER: _ClassVar[int]
    END_FRAME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DROP_REASON_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_ID_FIELD_NUMBER: _ClassVar[int]
    stream: str
    sequence: int
    window_number: int
    first_frame: int
    end_frame: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    score: float
    drop_reason: DropReason
    latency: _duration_pb2.Duration
    bundle_id: str
    def __init__(self, stream: _Optional[str] = ..., sequence: _Optional[int] = ..., window_number: _Optional[int] = ..., first_frame: _Optional[int] = ..., end_frame: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., score: _Optional[float] = ..., drop_reason: _Optional[_Union[DropReason, str]] = ..., latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., bundle_id: _Optional[str] = ...) -> None: ...
