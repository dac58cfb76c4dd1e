"""A camera that plays a program: parts with their own rate, clock and codec. For gst_server.py.

A program goes on whether anybody watches or not, as a real camera does: who comes in the middle
gets what is on, from the middle of a group of pictures too.
"""

from __future__ import annotations

import struct
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

SOURCE = "appsrc name={codec} is-live=true format=time block=false max-bytes=4000000 caps="
PAYLOADERS = {
    "h264": "video/x-h264,stream-format=byte-stream,alignment=au ! rtph264pay pt=96",
    "h265": "video/x-h265,stream-format=byte-stream,alignment=au ! rtph265pay pt=96",
    "mjpeg": "image/jpeg,width=160,height=96 ! rtpjpegpay pt=96",
}
TICKS_PER_SECOND = 90_000
"""RTP's clock for video."""


class Camera:
    """Plays the parts one after the other, the last one for ever, to all who watch.

    Args:
        parts: as `Part` of programs.py says.
    """

    def __init__(self, parts: list[dict]) -> None:
        self._parts = [part | {"units": read_units(part["units"])} for part in parts]
        self._number = self._sent = 0
        self._due_us: int | None = None
        self._ahead_us = 0  # the camera's clock before a true one
        self._ahead_by_pts: dict[int, int] = {}

    def configure(self, media: GstRtspServer.RTSPMedia) -> None:
        """Play into this media from now on, beginning with the first one."""
        self._pay = media.get_element().get_by_name("pay0")
        packets = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
        for payloader in self._pay.get_by_name("joint").sinkpads:
            payloader.get_peer().add_probe(packets, self._set_clock)
        self._media_due_us: int | None = None
        if self._due_us is None:
            self._due_us = GLib.get_monotonic_time()
            GLib.timeout_add(5, self._push_due)

    def create_element(self) -> Gst.Element:
        """A source and a payloader for each codec that is still to come, which speak as one."""
        codecs = dict.fromkeys(part["codec"] for part in self._parts[self._number :])
        branches = [f"{SOURCE.format(codec=codec)}{PAYLOADERS[codec]} ! joint." for codec in codecs]
        pay = Gst.parse_bin_from_description("funnel name=joint " + " ".join(branches), False)
        pay.set_name("pay0")
        pay.add_pad(Gst.GhostPad.new("src", pay.get_by_name("joint").get_static_pad("src")))
        media = Gst.Bin.new(None)
        media.add(pay)
        return media

    def _push_due(self) -> bool:
        while self._due_us <= GLib.get_monotonic_time():
            part = self._parts[self._number]
            self._push(part, part["units"][self._sent % len(part["units"])])
            self._due_us += round(1e6 / part["fps"])
            if part["still"]:
                self._ahead_us -= round(1e6 / part["fps"])
            self._sent += 1
            if self._sent == part["frames"] and self._number + 1 < len(self._parts):
                self._number, self._sent = self._number + 1, 0
                self._ahead_us += round(self._parts[self._number]["jump_seconds"] * 1e6)
        return True

    def _push(self, part: dict, unit: bytes) -> None:
        if self._media_due_us is None:
            # A session's description names the parameter sets, whichever picture comes first.
            unit = bytes.fromhex(part["parameter_sets"]) + unit
            self._media_due_us = self._due_us
        buffer = Gst.Buffer.new_wrapped(unit)
        buffer.pts = buffer.dts = (self._due_us - self._media_due_us) * 1000
        self._ahead_by_pts[buffer.pts] = self._ahead_us
        self._ahead_by_pts = dict(list(self._ahead_by_pts.items())[-100:])
        self._pay.get_by_name(part["codec"]).emit("push-buffer", buffer)

    def _set_clock(self, pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        """Write the camera's clock into packets, which GStreamer has stamped by a true one."""
        # Python holds a reference, so what is there can't be written to: a copy goes on instead.
        if info.type & Gst.PadProbeType.BUFFER_LIST:
            packets = info.get_buffer_list()
            packets = [packets.get(index) for index in range(packets.length())]
        else:
            packets = [info.get_buffer()]
        for packet in packets:
            pad.get_peer().chain(self._restamped(packet))
        return Gst.PadProbeReturn.DROP

    def _restamped(self, packet: Gst.Buffer) -> Gst.Buffer:
        data = bytearray(packet.extract_dup(0, packet.get_size()))
        (ticks,) = struct.unpack_from(">I", data, 4)
        ticks += self._ahead_by_pts.get(packet.pts, 0) * TICKS_PER_SECOND // 1_000_000
        struct.pack_into(">I", data, 4, ticks % 2**32)
        restamped = Gst.Buffer.new_wrapped(bytes(data))
        restamped.pts, restamped.dts = packet.pts, packet.dts
        return restamped


def read_units(path: str) -> list[bytes]:
    """Access units of a file: each a big-endian length of four bytes, then its bytes."""
    data = Path(path).read_bytes()
    units, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        units.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return units
