import datetime

from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_PULL: _ClassVar[Mode]
    MODE_LISTEN: _ClassVar[Mode]

class Transport(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSPORT_UNSPECIFIED: _ClassVar[Transport]
    TRANSPORT_TCP: _ClassVar[Transport]
    TRANSPORT_UDP: _ClassVar[Transport]

class StreamState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_STATE_UNSPECIFIED: _ClassVar[StreamState]
    STREAM_STATE_CONNECTING: _ClassVar[StreamState]
    STREAM_STATE_RUNNING: _ClassVar[StreamState]
    STREAM_STATE_BACKING_OFF: _ClassVar[StreamState]
    STREAM_STATE_PARKED: _ClassVar[StreamState]
    STREAM_STATE_ENDED: _ClassVar[StreamState]

class StreamReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_REASON_UNSPECIFIED: _ClassVar[StreamReason]
    STREAM_REASON_AUTH_FAILED: _ClassVar[StreamReason]
    STREAM_REASON_TIMEOUT: _ClassVar[StreamReason]
    STREAM_REASON_NOT_FOUND: _ClassVar[StreamReason]
    STREAM_REASON_TLS_FAILED: _ClassVar[StreamReason]
    STREAM_REASON_CODEC_UNSUPPORTED: _ClassVar[StreamReason]
    STREAM_REASON_NO_VIDEO: _ClassVar[StreamReason]
    STREAM_REASON_STALE: _ClassVar[StreamReason]
    STREAM_REASON_ADDRESS_DENIED: _ClassVar[StreamReason]
    STREAM_REASON_END_OF_STREAM: _ClassVar[StreamReason]
    STREAM_REASON_WORKER_LOST: _ClassVar[StreamReason]
    STREAM_REASON_UNREACHABLE: _ClassVar[StreamReason]
    STREAM_REASON_INTERNAL: _ClassVar[StreamReason]
MODE_UNSPECIFIED: Mode
MODE_PULL: Mode
MODE_LISTEN: Mode
TRANSPORT_UNSPECIFIED: Transport
TRANSPORT_TCP: Transport
TRANSPORT_UDP: Transport
STREAM_STATE_UNSPECIFIED: StreamState
STREAM_STATE_CONNECTING: StreamState
STREAM_STATE_RUNNING: StreamState
STREAM_STATE_BACKING_OFF: StreamState
STREAM_STATE_PARKED: StreamState
STREAM_STATE_ENDED: StreamState
STREAM_REASON_UNSPECIFIED: StreamReason
STREAM_REASON_AUTH_FAILED: StreamReason
STREAM_REASON_TIMEOUT: StreamReason
STREAM_REASON_NOT_FOUND: StreamReason
STREAM_REASON_TLS_FAILED: StreamReason
STREAM_REASON_CODEC_UNSUPPORTED: StreamReason
STREAM_REASON_NO_VIDEO: StreamReason
STREAM_REASON_STALE: StreamReason
STREAM_REASON_ADDRESS_DENIED: StreamReason
STREAM_REASON_END_OF_STREAM: StreamReason
STREAM_REASON_WORKER_LOST: StreamReason
STREAM_REASON_UNREACHABLE: StreamReason
STREAM_REASON_INTERNAL: StreamReason

class Stream(_message.Message):
    __slots__ = ("name", "url", "mode", "transport", "open_threshold", "status", "create_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    OPEN_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    mode: Mode
    transport: Transport
    open_threshold: float
    status: StreamStatus
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., transport: _Optional[_Union[Transport, str]] = ..., open_threshold: _Optional[float] = ..., status: _Optional[_Union[StreamStatus, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StreamStatus(_message.Message):
    __slots__ = ("state", "reason", "message", "frames_decoded", "reconnects", "last_frame_time", "next_sequence", "last_score")
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DECODED_FIELD_NUMBER: _ClassVar[int]
    RECONNECTS_FIELD_NUMBER: _ClassVar[int]
    LAST_FRAME_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_SCORE_FIELD_NUMBER: _ClassVar[int]
    state: StreamState
    reason: StreamReason
    message: str
    frames_decoded: int
    reconnects: int
    last_frame_time: _timestamp_pb2.Timestamp
    next_sequence: int
    last_score: float
    def __init__(self, state: _Optional[_Union[StreamState, str]] = ..., reason: _Optional[_Union[StreamReason, str]] = ..., message: _Optional[str] = ..., frames_decoded: _Optional[int] = ..., reconnects: _Optional[int] = ..., last_frame_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_sequence: _Optional[int] = ..., last_score: _Optional[float] = ...) -> None: ...

class CreateStreamRequest(_message.Message):
    __slots__ = ("stream_id", "stream")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    stream: Stream
    def __init__(self, stream_id: _Optional[str] = ..., stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class GetStreamRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListStreamsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams", "next_page_token")
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    next_page_token: str
    def __init__(self, streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateStreamRequest(_message.Message):
    __slots__ = ("stream", "update_mask")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    stream: Stream
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, stream: _Optional[_Union[Stream, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class DeleteStreamRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...
