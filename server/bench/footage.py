"""A clip as a camera sends it: H.264 network abstraction layer units, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av.container
import av.error
from av.bitstream import BitStreamFilterContext

from server.ingest.video import open_file, strerror, video_stream

_START_CODE = b"\0\0\1"
_SLICE, _KEY_SLICE, _SEQUENCE_SET, _PICTURE_SET = 1, 5, 7, 8
# Slices and what they need; delimiters and supplemental information are left behind.
_SENT = frozenset({_SLICE, _KEY_SLICE, _SEQUENCE_SET, _PICTURE_SET})


class FootageError(ValueError):
    """A clip that no camera would send; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One encoded frame.

    Attributes:
        nals: its units without start codes, none of them empty.
        is_key: whether decoding can begin here.
    """

    nals: tuple[bytes, ...]
    is_key: bool


@dataclass(frozen=True, slots=True)
class Footage:
    """A clip, ready to be looped: its first frame is a key frame.

    Attributes:
        units: its frames in the order in which they are sent and shown.
        sequence_set: H.264's sequence parameter set, of the first key frame.
        picture_set: H.264's picture parameter set, of the same.
    """

    units: tuple[AccessUnit, ...]
    sequence_set: bytes
    picture_set: bytes


def read_footage(clip: Path) -> Footage:
    """Read a clip whole.

    Args:
        clip: H.264 without B-frames, in any container.

    Raises:
        SourceError: the file cannot be read as video.
        FootageError: it is not H.264, has B-frames, or begins without a key frame.
    """
    with open_file(clip) as container:
        video = video_stream(container, str(clip))
        if video.codec_context.name != "h264":
            raise FootageError(f"{clip} is {video.codec_context.name}; give a clip of H.264")
        try:
            units = tuple(_units(container, clip))
        except av.error.FFmpegError as error:
            raise FootageError(f"{clip} breaks off ({strerror(error)}); give a whole one") from None
    if not units or not units[0].is_key:
        raise FootageError(f"{clip} does not begin with a key frame; encode it anew")
    sets = {nal[0] & 0x1F: nal for nal in units[0].nals}
    if not {_SEQUENCE_SET, _PICTURE_SET} <= sets.keys():
        raise FootageError(f"{clip} has no parameter sets; encode it anew")
    return Footage(units, sets[_SEQUENCE_SET], sets[_PICTURE_SET])


def _units(container: av.container.InputContainer, clip: Path) -> Iterator[AccessUnit]:
    video = container.streams.video[0]
    to_annex_b = BitStreamFilterContext("h264_mp4toannexb", video)
    for packet in container.demux(video):
        if packet.pts is not None and packet.dts is not None and packet.pts != packet.dts:
            raise FootageError(
                f"{clip} has B-frames, which cameras do not send; encode it with -bf 0"
            )
        for filtered in to_annex_b.filter(packet if packet.size else None):
            nals = tuple(nal for nal in split_nals(bytes(filtered)) if nal[0] & 0x1F in _SENT)
            if nals:
                yield AccessUnit(nals, any(nal[0] & 0x1F == _KEY_SLICE for nal in nals))


def split_nals(annex_b: bytes) -> list[bytes]:
    r"""The units of a byte stream with start codes (ITU H.264, annex B).

    >>> split_nals(b"\0\0\0\1\x67ab\0\0\1\x65c")
    [b'gab', b'ec']
    """
    # A unit never ends in zero bytes: those belong to the next start code.
    parts = (part.rstrip(b"\0") for part in annex_b.split(_START_CODE)[1:])
    return [part for part in parts if part]
