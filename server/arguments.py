"""The arguments of `gvvad`, in one parser; no command is imported for it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from server.alert_arguments import add_alerts
from server.bench.arguments import add_bench
from server.calibrate_cli import add_calibrate
from server.deliveries_cli import add_deliveries
from server.engine.flags import add_engine_flags, add_threads_flag
from server.sampling_flags import add_sampling_flags
from server.tuning_flags import (
    add_policy_flags,
    add_snooze_arguments,
    add_tuning_flags,
    add_update_flags,
)

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_SERVER = "127.0.0.1:50051"


class UsageError(ValueError):
    """Arguments or input that cannot be used; the message is the one line to print."""


class _Parser(argparse.ArgumentParser):
    """Errors in one line, and no abbreviated flags that a later one would break."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        from server.streams import shown

        # It may quote a URL, or the end of one whose password holds a space.
        what, colon, given = message.partition(": ")
        message = f"{what}{colon}{shown(given)}" if "@" in given or "://" in given else message
        raise UsageError(f"{message}; see {self.prog} --help")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of one command; `command` is its name, such as "streams add".

    Raises:
        UsageError: arguments that make no sense.
    """
    parser: argparse.ArgumentParser = _Parser(
        prog="gvvad",
        description="Real-time surveillance anomaly server: cameras in, scores and alerts out.",
        epilog="Start with: gvvad demo. Then: gvvad serve, and in another terminal "
        "gvvad streams add door rtsp://HOST/PATH and gvvad watch.",
    )
    commands: Commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_demo_camera(commands)
    _add_serve(commands)
    _add_streams(commands)
    _add_watch(commands)
    add_alerts(commands, _add_client_flags)
    _add_push(commands)
    _add_model(commands)
    _add_capacity(commands)
    _add_backtest(commands)
    add_deliveries(commands, _add_client_flags)
    add_calibrate(commands, _add_client_flags)
    add_bench(commands)
    return parser.parse_args(arguments)


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="a camera, a server and what it sees, in one command")
    demo.add_argument("--clip", type=Path, metavar="FILE", help="play this video as the camera")
    demo.add_argument(
        "--seconds", type=float, default=30.0, metavar="N", help="how long (default %(default)g)"
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo-out"),
        metavar="DIR",
        help="where the picture goes (default %(default)s)",
    )
    _add_json(demo)
    demo.set_defaults(command="demo")


def _add_demo_camera(commands: Commands) -> None:
    camera = commands.add_parser(
        "demo-camera",
        help="a camera that pushes to a server until it is stopped",
        description="Make STREAM at the server if there is none of that id, then push the "
        "rendered scene, or a video, to URL until SIGTERM or Ctrl-C. The server listens on the "
        "same port and path; its access.listen_networks must hold the address.",
    )
    camera.add_argument("stream", metavar="STREAM", help="id of the stream")
    camera.add_argument("url", metavar="URL", help="rtsp://HOST:PORT/PATH, the server's host")
    camera.add_argument("--clip", type=Path, metavar="FILE", help="play this video")
    camera.add_argument(
        "--listen-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address that the server listens on (default %(default)s; 0.0.0.0 for any)",
    )
    camera.add_argument(
        "--server",
        default=os.environ.get("GVVAD_SERVER", DEFAULT_SERVER),
        metavar="HOST:PORT",
        help="the server to ask (default $GVVAD_SERVER, else %(default)s)",
    )
    camera.set_defaults(command="demo-camera")


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="run the server",
        description="Run the server until SIGTERM or Ctrl-C. A setting comes from --set, else "
        "from GVVAD_<GROUP>__<KEY>, else from the file, else from its default.",
    )
    serve.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML")
    serve.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as grpc.port=50051; may be repeated",
    )
    serve.set_defaults(command="serve")


def _add_streams(commands: Commands) -> None:
    streams = commands.add_parser("streams", help="add, list, get, update and remove streams")
    actions = streams.add_subparsers(title="actions", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="add a stream")
    add.add_argument("stream", metavar="STREAM", help="its id: 1 to 63 of a-z, 0-9 and '-'")
    add.add_argument("url", metavar="URL", help="rtsp://, rtsps:// or file:// URL")
    _add_source_flags(add)
    add_tuning_flags(add)
    add_sampling_flags(add)
    add.set_defaults(command="streams add")
    update = actions.add_parser("update", help="change a stream; what is not named stays")
    update.add_argument("stream", metavar="STREAM")
    update.add_argument("--url", help="new source; without it source and credentials stay")
    _add_source_flags(update)
    update.add_argument(
        "--bundle-threshold", action="store_true", help="go back to the bundle's threshold"
    )
    update.add_argument("--no-masks", action="store_true", help="let the detector see everything")
    add_update_flags(update)
    add_sampling_flags(update)
    update.set_defaults(command="streams update")
    for name, text in (("get", "show one stream"), ("remove", "stop and forget a stream")):
        action = actions.add_parser(name, help=text)
        action.add_argument("stream", metavar="STREAM")
        action.set_defaults(command=f"streams {name}")
        _add_client_flags(action)
    everything = actions.add_parser("list", help="list all streams")
    everything.set_defaults(command="streams list")
    snooze = actions.add_parser("snooze", help="deliver no alert of a stream until a time")
    add_snooze_arguments(snooze)
    snooze.set_defaults(command="streams snooze")
    for action in (add, update, everything, snooze):
        _add_client_flags(action)


def _add_source_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode", choices=("pull", "listen"), help="who connects: we (pull) or the camera (listen)"
    )
    parser.add_argument("--transport", choices=("tcp", "udp"), help="what carries the video")
    parser.add_argument(
        "--threshold", type=float, metavar="SCORE", help="score that opens an alert, over 0 to 1"
    )
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password of rtsp://USER@HOST/PATH from standard input, since arguments "
        "can be seen by others on this machine",
    )
    # Only here: that module takes its error from this one.
    from server.commands.evidence import add_evidence_flags

    add_evidence_flags(parser)


def _add_watch(commands: Commands) -> None:
    watch = commands.add_parser("watch", help="show scores and alerts as they come")
    watch.add_argument("stream", nargs="?", metavar="STREAM", help="only this one (default: all)")
    _add_client_flags(watch)
    watch.set_defaults(command="watch")


def _add_push(commands: Commands) -> None:
    push = commands.add_parser(
        "push",
        help="send a video of yours and show its scores",
        description="Send a video and show its scores. H.264 and H.265 go as they are, other "
        "codecs as raw pictures. The server sets the pace, so that nothing is lost, unless "
        "--live says otherwise.",
    )
    push.add_argument("stream", metavar="STREAM", help="a stream added with the URL push://")
    push.add_argument("video", metavar="FILE|-", help="video file; - reads standard input")
    push.add_argument(
        "--temporary",
        action="store_true",
        help="make the stream, and remove it at the end",
    )
    push.add_argument(
        "--live",
        action="store_true",
        help="play in real time; the server drops what it has no time for",
    )
    _add_client_flags(push)
    push.set_defaults(command="push")


def _add_model(commands: Commands) -> None:
    model = commands.add_parser("model", help="show what the server scores with")
    _add_client_flags(model)
    model.set_defaults(command="model")


def _add_capacity(commands: Commands) -> None:
    capacity = commands.add_parser(
        "capacity",
        help="show how many streams the server holds, and what they take",
        description="What the live streams take of the cores, as measured while they run, and how "
        "many more like them fit. Files and lossless pushes take what is left and do not count.",
    )
    _add_client_flags(capacity)
    capacity.set_defaults(command="capacity")


def _add_backtest(commands: Commands) -> None:
    backtest = commands.add_parser(
        "backtest", help="replay recorded clips through the very same path and report on them"
    )
    backtest.add_argument(
        "directory", type=Path, metavar="DIR", help="clips, with or without truth"
    )
    backtest.add_argument(
        "--bundle", type=Path, metavar="DIR", help="detector (default: the embedded one)"
    )
    backtest.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="that opens an alert (default: the bundle's)",
    )
    add_policy_flags(backtest)
    add_engine_flags(backtest)
    add_threads_flag(backtest)
    _add_json(backtest)
    backtest.set_defaults(command="backtest")


def _add_client_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        default=os.environ.get("GVVAD_SERVER", DEFAULT_SERVER),
        metavar="HOST:PORT",
        help="the server to ask (default $GVVAD_SERVER, else %(default)s)",
    )
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer in JSON, for programs")
