"""What can be seen of encoded frames without decoding them; pure."""

from __future__ import annotations

import struct

from server.pushed import Codec

_START_CODE = b"\x00\x00\x01"


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in a JPEG's frame header (ITU T.81, B.2.2); (0, 0) where it has none.

    Read here and not by a picture library: nothing may be decoded to learn it.
    """
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
    return 0, 0


def has_start_code(data: bytes) -> bool:
    """Whether an access unit begins as Annex B has it (ITU H.264 and H.265, annex B)."""
    return data[:3] == _START_CODE or data[:4] == b"\x00" + _START_CODE


def is_key_frame(codec: Codec, data: bytes) -> bool:
    """Whether decoding can begin at a frame.

    For access units: whether the first slice is of a kind that refers to none before
    it (H.264 table 7-1: type 5; H.265 table 7-1: types 16 to 21).
    """
    if codec.is_intra:
        return True
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - len(_START_CODE):
        header = data[at + len(_START_CODE)]
        if codec is Codec.H264 and 1 <= header & 0x1F <= 5:
            return header & 0x1F == 5
        if codec is Codec.H265 and (header >> 1) & 0x3F < 32:
            return 16 <= (header >> 1) & 0x3F <= 21
        at = data.find(_START_CODE, at + len(_START_CODE))
    return False


def parameter_sets(codec: Codec, data: bytes) -> bytes:
    """The parameter sets before an access unit's picture, with start codes; empty without any.

    H.264 table 7-1: types 7 and 8; H.265 table 7-1: types 32 to 34.
    """
    found = b""
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - len(_START_CODE):
        begin = at + len(_START_CODE)
        kind = data[begin] & 0x1F if codec is Codec.H264 else (data[begin] >> 1) & 0x3F
        if kind < 6 if codec is Codec.H264 else kind < 32:
            break  # a slice of the picture
        at = data.find(_START_CODE, begin)
        if kind in ((7, 8) if codec is Codec.H264 else (32, 33, 34)):
            # Zero bytes before the next start code are no part of a unit.
            found += b"\0" + _START_CODE + data[begin : at if at >= 0 else None].rstrip(b"\0")
    return found
