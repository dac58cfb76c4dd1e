"""Frames to RTP and back, by a depacketiser that shares nothing with the packetiser."""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bench.footage import AccessUnit, Footage, FootageError, read_footage, split_nals
from server.bench.rtp import CLOCK_HZ, PACKET_BYTES, RtpClip, RtpStream, packetize
from server.streams import SourceError
from tests.support.cameras import render_clip

NALS = st.builds(
    lambda kind, importance, body: bytes([importance << 5 | kind]) + body,
    st.sampled_from([1, 5, 7, 8]),
    st.integers(0, 3),
    st.binary(min_size=1, max_size=9000),
)
UNITS = st.builds(AccessUnit, st.lists(NALS, min_size=1, max_size=5).map(tuple), st.booleans())
WORDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Packet:
    channel: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def unframed(data: bytes) -> list[tuple[int, bytes]]:
    """Channel and content of each frame of an RTSP connection."""
    found = []
    while data:
        sign, channel, size = struct.unpack(">cBH", data[:4])
        assert sign == b"$"
        assert len(data) >= 4 + size
        found.append((channel, data[4 : 4 + size]))
        data = data[4 + size :]
    return found


def parsed(data: bytes) -> list[Packet]:
    packets = []
    for channel, content in unframed(data):
        flags, kind, sequence, timestamp, ssrc = struct.unpack(">BBHII", content[:12])
        assert flags == 0x80
        assert kind & 0x7F == 96
        packets.append(Packet(channel, kind > 127, sequence, timestamp, ssrc, content[12:]))
    return packets


def depacketized(packets: list[Packet]) -> list[bytes]:
    nals: list[bytes] = []
    for packet in packets:
        first, rest = packet.payload[0], packet.payload[1:]
        if first & 31 != 28:
            nals.append(packet.payload)
        elif rest[0] & 0x80:
            nals.append(bytes([first & 0xE0 | rest[0] & 31]) + rest[1:])
        else:
            nals[-1] += rest[1:]
    return nals


def stream_of(*units: AccessUnit, fps: float = 25.0) -> RtpStream:
    footage = Footage(units, b"\x67\x42\xc0\x1f", b"\x68\x01")
    return RtpStream(RtpClip(footage), fps, 7, 65_000, 2**32 - 5000)


@given(UNITS, st.integers(0, 65_535), WORDS, WORDS)
def test_what_was_cut_into_packets_can_be_put_together(
    unit: AccessUnit, sequence: int, timestamp: int, ssrc: int
) -> None:
    packets = parsed(packetize(unit).stamped(sequence, timestamp, ssrc))
    assert depacketized(packets) == list(unit.nals)
    assert [p.sequence for p in packets] == [(sequence + n) % 65_536 for n in range(len(packets))]
    assert {(p.channel, p.timestamp, p.ssrc) for p in packets} == {(0, timestamp, ssrc)}
    assert [p.marker for p in packets] == [False] * (len(packets) - 1) + [True]


@given(UNITS)
def test_no_packet_is_larger_than_cameras_send_and_only_fragments_lack_a_unit(
    unit: AccessUnit,
) -> None:
    packets = parsed(packetize(unit).stamped(0, 0, 0))
    assert all(12 + len(packet.payload) <= PACKET_BYTES for packet in packets)
    fragments = [packet.payload for packet in packets if packet.payload[0] & 31 == 28]
    assert all(not (payload[1] & 0x80 and payload[1] & 0x40) for payload in fragments)
    assert sum(payload[1] >> 7 for payload in fragments) == sum(
        payload[1] >> 6 & 1 for payload in fragments
    )


@given(st.lists(UNITS, min_size=1, max_size=4), st.integers(0, 12))
def test_a_stream_never_repeats_or_skips_a_number_over_the_seam(
    units: list[AccessUnit], first: int
) -> None:
    stream = stream_of(*units)
    packets = [p for n in range(first, first + 9) for p in parsed(stream.packets(n))]
    steps = {(b.sequence - a.sequence) % 65_536 for a, b in pairwise(packets)}
    assert steps <= {1}
    assert packets[0].sequence == stream.sequence(first)


@given(st.floats(0.2, 120), st.integers(0, 10**7))
def test_times_rise_by_a_frame_and_never_drift(fps: float, number: int) -> None:
    stream = stream_of(AccessUnit((b"\x65a",), True), fps=fps)
    passed = (stream.timestamp(number) - stream.timestamp(0)) % 2**32
    due = number * CLOCK_HZ / fps
    assert min(abs(passed - due % 2**32), abs(passed - due % 2**32 + 2**32)) <= 1
    step = (stream.timestamp(number + 1) - stream.timestamp(number)) % 2**32
    assert abs(step - CLOCK_HZ / fps) <= 1


def test_a_key_frame_is_found_from_anywhere() -> None:
    key, other = AccessUnit((b"\x65a",), True), AccessUnit((b"\x41a",), False)
    stream = stream_of(key, other, other)
    assert [stream.next_key(number) for number in range(5)] == [0, 3, 3, 3, 6]


def test_a_sender_report_says_when_a_frame_was_taken() -> None:
    stream = stream_of(AccessUnit((b"\x65abc",), True), AccessUnit((b"\x41", b"\x41de"), False))
    ((channel, content),) = unframed(stream.sender_report(5, 1_000_000.25))
    assert channel == 1
    flags, kind, words, *report = struct.unpack(">BBH6I", content[:28])
    assert (flags, kind, words) == (0x80, 200, 6)
    ssrc, seconds, fraction, timestamp, packets, octets = report
    assert (ssrc, timestamp) == (7, stream.timestamp(5))
    assert (seconds - 2_208_988_800, fraction) == (1_000_000, 2**30)
    assert (packets, octets) == (2 * 3 + 1, 2 * 8 + 4)  # two showings and a frame came before
    flags, kind, words = struct.unpack(">BBH", content[28:32])
    assert (flags, kind) == (0x81, 202)
    assert len(content) == 28 + 4 + 4 * words
    assert content[36:44] == b"\x01\x06camera"


def test_the_description_carries_what_a_decoder_must_know() -> None:
    described = stream_of(AccessUnit((b"\x65a",), True)).description("127.0.0.1")
    assert described.endswith("\r\n")
    assert "m=video 0 RTP/AVP 96\r\n" in described
    assert "packetization-mode=1" in described
    assert "profile-level-id=42C01F" in described
    found = re.search(r"sprop-parameter-sets=(\S+)", described)
    assert found is not None
    sets = [base64.b64decode(text) for text in found[1].split(",")]
    assert sets == [b"\x67\x42\xc0\x1f", b"\x68\x01"]


@given(st.lists(NALS.filter(lambda nal: b"\0\0" not in nal and nal[-1] != 0), max_size=4))
def test_units_come_back_out_of_a_byte_stream(nals: list[bytes]) -> None:
    stream = b"".join(b"\0" * (2 + n % 2) + b"\1" + nal for n, nal in enumerate(nals))
    assert split_nals(stream) == nals


def test_a_clip_is_read_frame_by_frame(tmp_path: Path) -> None:
    footage = read_footage(render_clip(tmp_path / "clip.mp4", seconds=2.2, fps=10))
    assert len(footage.units) == 22
    assert [n for n, unit in enumerate(footage.units) if unit.is_key] == [0, 10, 20]
    kinds = {nal[0] & 31 for unit in footage.units for nal in unit.nals}
    assert kinds == {1, 5, 7, 8}


def test_a_clip_that_no_camera_sends_is_refused_with_a_sentence(tmp_path: Path) -> None:
    foreign = render_clip(tmp_path / "clip.avi", codec="mpeg4")
    with pytest.raises(FootageError, match=r"clip\.avi is mpeg4; give a clip of H.264"):
        read_footage(foreign)
    with pytest.raises(SourceError, match="is not a file"):
        read_footage(tmp_path / "missing.mp4")
