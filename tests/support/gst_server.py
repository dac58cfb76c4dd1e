"""A real RTSP server of GStreamer's, run by the system's Python in its own process.

Reads one line of JSON from stdin (`ServerPlan` of cameras.py writes it), prints the port once it
listens, and serves until it is killed or its stdin closes. Every mount loops one clip of H.264
access units in real time with running times, as a camera would.
"""

from __future__ import annotations

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402
from gst_program import Camera as ProgramCamera  # noqa: E402
from gst_program import read_units  # noqa: E402

LAUNCH = (
    "( appsrc name=source is-live=true format=time block=false max-bytes=4000000 "
    "caps=video/x-h264,stream-format=byte-stream,alignment=au,framerate={fps}/1 "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


class Camera:
    """Pushes access units into one media's appsrc, paced by GLib's clock."""

    def __init__(self, source: Gst.Element, units: list[bytes], fps: int) -> None:
        self._source = source
        self._units = units
        self._frame_ns = Gst.SECOND // fps
        self._start_us = GLib.get_monotonic_time()
        self._sent = 0
        GLib.timeout_add(max(1, 500 // fps), self._push_due)

    def _push_due(self) -> bool:
        elapsed_ns = (GLib.get_monotonic_time() - self._start_us) * 1000
        while self._sent * self._frame_ns <= elapsed_ns:
            buffer = Gst.Buffer.new_wrapped(self._units[self._sent % len(self._units)])
            buffer.pts = buffer.dts = self._sent * self._frame_ns
            buffer.duration = self._frame_ns
            if self._source.emit("push-buffer", buffer) != Gst.FlowReturn.OK:
                return False  # the last reader left and the media is gone
            self._sent += 1
        return True


def add_mount(server: GstRtspServer.RTSPServer, path: str, plan: dict) -> None:
    """Serve the plan's clip at `path`, one encoder for all readers."""
    units, fps = read_units(plan["mounts"][path]), plan["fps"]
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH.format(fps=plan["declared_fps"]))
    factory.set_shared(True)
    if plan["user"]:
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)

    def configure(_factory: object, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name_recurse_up("source")
        media.camera = Camera(source, units, fps)

    factory.connect("media-configure", configure)
    server.get_mount_points().add_factory(path, factory)


class ProgramFactory(GstRtspServer.RTSPMediaFactory):
    """Makes the media of a camera that plays a program."""

    def __init__(self, parts: list[dict]) -> None:
        super().__init__()
        self.set_shared(True)
        self._camera = ProgramCamera(parts)
        self.connect("media-configure", lambda _, media: self._camera.configure(media))

    def do_create_element(self, _url: object) -> Gst.Element:
        return self._camera.create_element()


def require_digest(server: GstRtspServer.RTSPServer, user: str, password: str) -> None:
    """Let in only readers that know the password."""
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    server.set_auth(auth)


def main() -> None:
    """Serve what the line on stdin asks for."""
    plan = json.loads(sys.stdin.readline())
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(plan["address"])
    server.set_service(str(plan["port"]))
    for path in plan["mounts"]:
        add_mount(server, path, plan)
    for path, parts in plan["programs"].items():
        server.get_mount_points().add_factory(path, ProgramFactory(parts))
    for path, launch in plan["launches"].items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch)
        server.get_mount_points().add_factory(path, factory)
    if plan["user"]:
        require_digest(server, plan["user"], plan["password"])
    loop = GLib.MainLoop()
    if server.attach(None) == 0:
        sys.exit("cannot listen on {address}:{port}".format(**plan))
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main()
