"""Frames as RTP packets inside an RTSP connection; pure.

Everything that does not change from one showing of a frame to the next is made
once: a frame is its packets' bytes, one behind the other, each framed for the
connection (RFC 2326, 10.12). What remains to be done just before sending is to
copy them and to write sequence number, time and source into each.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from server.bench.footage import AccessUnit, Footage

CLOCK_HZ = 90_000
PACKET_BYTES = 1400
"""Of an RTP packet with its header: what cameras send, so that no network cuts it up."""

MEDIA_CHANNEL, CONTROL_CHANNEL = 0, 1
PAYLOAD_TYPE = 96

_HEADER = struct.Struct(">cBHBBHII")  # framing, then RFC 3550, 5.1
_STAMP = struct.Struct(">HII")
_STAMP_OFFSET = 6
_RTP_HEADER_BYTES = 12
_VERSION = 0x80
_MARKER = 0x80
_FU_A = 28
_FU_START, _FU_END = 0x80, 0x40
_SENDER_REPORT, _DESCRIPTION = 200, 202
_CNAME = 1
_UNIX_TO_NTP_SECONDS = 2_208_988_800
_MASK_16, _MASK_32 = 0xFFFF, 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class PacketizedFrame:
    """A frame's packets, framed and joined, with nothing stamped yet.

    Attributes:
        data: all bytes.
        stamps: where in them each packet's sequence number stands.
        payload_bytes: what of them is H.264.
        is_key: whether decoding can begin here.
    """

    data: bytes
    stamps: tuple[int, ...]
    payload_bytes: int
    is_key: bool

    def stamped(self, sequence: int, timestamp: int, ssrc: int) -> bytearray:
        """The bytes to send.

        Args:
            sequence: of the first packet, 0 to 65535; the others follow it.
            timestamp: the frame's, in units of CLOCK_HZ, 32 bits.
            ssrc: of the source, 32 bits.
        """
        data = bytearray(self.data)
        for offset in self.stamps:
            _STAMP.pack_into(data, offset, sequence & _MASK_16, timestamp, ssrc)
            sequence += 1
        return data


def packetize(unit: AccessUnit) -> PacketizedFrame:
    """Cut a frame into packets of at most PACKET_BYTES.

    Source: RFC 6184, 5.6 (a unit a packet) and 5.8 (FU-A, a unit over several).
    """
    payloads = [payload for nal in unit.nals for payload in _payloads(nal)]
    data, stamps = bytearray(), []
    for number, payload in enumerate(payloads):
        stamps.append(len(data) + _STAMP_OFFSET)
        marker = _MARKER if number == len(payloads) - 1 else 0
        size = _RTP_HEADER_BYTES + len(payload)
        header = (b"$", MEDIA_CHANNEL, size, _VERSION, marker | PAYLOAD_TYPE, 0, 0, 0)
        data += _HEADER.pack(*header) + payload
    return PacketizedFrame(bytes(data), tuple(stamps), sum(map(len, payloads)), unit.is_key)


def _payloads(nal: bytes) -> Iterator[bytes]:
    room = PACKET_BYTES - _RTP_HEADER_BYTES
    if len(nal) <= room:
        yield nal
        return
    indicator, kind = nal[0] & 0xE0 | _FU_A, nal[0] & 0x1F
    step = room - 2
    for begin in range(1, len(nal), step):
        start = _FU_START if begin == 1 else 0
        end = _FU_END if begin + step >= len(nal) else 0
        yield bytes((indicator, start | end | kind)) + nal[begin : begin + step]


class RtpClip:
    """A clip's frames as packets, for all cameras that show it.

    Args:
        footage: the clip.
    """

    def __init__(self, footage: Footage) -> None:
        self.frames = [packetize(unit) for unit in footage.units]
        self.parameter_sets = (footage.sequence_set, footage.picture_set)
        self.packets_before = _sums([len(frame.stamps) for frame in self.frames])
        self.bytes_before = _sums([frame.payload_bytes for frame in self.frames])


def _sums(counts: Sequence[int]) -> list[int]:
    return list(accumulate(counts, initial=0))


@dataclass(frozen=True, slots=True)
class RtpStream:
    """One camera's endless stream: the clip over and over on one running clock.

    Frame n is the clip's frame n modulo its length, so that every reader, whenever it
    comes, sees the same numbers.

    Attributes:
        clip: what is shown.
        fps: frames a second, over 0.
        ssrc: of the source, 32 bits.
        first_sequence: sequence number of the first packet of frame 0, 16 bits.
        first_timestamp: time of frame 0 in units of CLOCK_HZ, 32 bits.
    """

    clip: RtpClip
    fps: float
    ssrc: int
    first_sequence: int
    first_timestamp: int

    def is_key(self, number: int) -> bool:
        """Whether decoding can begin at that frame."""
        return self.clip.frames[number % len(self.clip.frames)].is_key

    def next_key(self, number: int) -> int:
        """The first key frame from that frame on."""
        while not self.is_key(number):
            number += 1
        return number

    def packets(self, number: int) -> bytearray:
        """The bytes of a frame's packets, ready to be sent."""
        showings, at = divmod(number, len(self.clip.frames))
        before = self.clip.packets_before
        sequence = self.first_sequence + showings * before[-1] + before[at]
        return self.clip.frames[at].stamped(sequence, self.timestamp(number), self.ssrc)

    def sequence(self, number: int) -> int:
        """Sequence number of a frame's first packet, 16 bits."""
        return (self.first_sequence + self._total(self.clip.packets_before, number)) & _MASK_16

    def timestamp(self, number: int) -> int:
        """Time of a frame in units of CLOCK_HZ, 32 bits."""
        return (self.first_timestamp + round(number * CLOCK_HZ / self.fps)) & _MASK_32

    def sender_report(self, number: int, utc_seconds: float) -> bytes:
        """What tells a reader when frames are taken, framed for the connection.

        Args:
            number: of a frame.
            utc_seconds: since the epoch, when it was taken.

        Source: RFC 3550, 6.4.1 and, since no report may go alone, 6.5.
        """
        ntp = round((utc_seconds + _UNIX_TO_NTP_SECONDS) * 2**32)
        counts = (
            self._total(self.clip.packets_before, number) & _MASK_32,
            self._total(self.clip.bytes_before, number) & _MASK_32,
        )
        times = (ntp >> 32 & _MASK_32, ntp & _MASK_32, self.timestamp(number))
        words = (self.ssrc, *times, *counts)
        report = struct.pack(">BBH6I", _VERSION, _SENDER_REPORT, len(words), *words)
        name = b"camera"
        item = bytes((_CNAME, len(name))) + name
        item += bytes(4 - len(item) % 4)  # at least one zero byte ends the list
        body = struct.pack(">I", self.ssrc) + item
        report += struct.pack(">BBH", _VERSION | 1, _DESCRIPTION, len(body) // 4) + body
        return struct.pack(">cBH", b"$", CONTROL_CHANNEL, len(report)) + report

    def description(self, address: str) -> str:
        """The session as SDP (RFC 8866; RFC 6184, 8.2.1).

        Args:
            address: IPv4 of the camera.
        """
        sequence_set, picture_set = self.clip.parameter_sets
        sets = ",".join(base64.b64encode(nal).decode() for nal in (sequence_set, picture_set))
        lines = (
            "v=0",
            f"o=- {self.ssrc} 1 IN IP4 {address}",
            "s=camera",
            f"c=IN IP4 {address}",
            "t=0 0",
            "a=control:*",
            "a=range:npt=now-",
            f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
            f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
            f"a=fmtp:{PAYLOAD_TYPE} packetization-mode=1;"
            f"profile-level-id={sequence_set[1:4].hex().upper()};sprop-parameter-sets={sets}",
            f"a=framerate:{self.fps:g}",
            "a=control:track",
        )
        return "".join(f"{line}\r\n" for line in lines)

    def _total(self, before: Sequence[int], number: int) -> int:
        """What all frames before that one have of something, given the sums over one showing."""
        showings, at = divmod(number, len(self.clip.frames))
        return showings * before[-1] + before[at]
