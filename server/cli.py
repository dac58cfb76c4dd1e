"""The command line: `gvvad`.

Everything that talks to a server goes through `server.rpc.client`, as any
client would. Exit codes: 0 done, 1 failed at run time, 2 bad usage or input,
130 interrupted. Commands import what they need when they run, so that
`gvvad --help` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from server.arguments import UsageError, parse
from server.commands.evidence import evidence_mode_of, masks_of, save_evidence

if TYPE_CHECKING:
    from server.alerts import Alert
    from server.pushed import PushedFrame
    from server.rpc.alert_messages import WatchedAlert
    from server.rpc.client import Client, Watch
    from server.scoring import WindowScore
    from server.streams import SourceError, SourceUrl
    from server.views import StreamView

# What the caller can mend is exit code 2; the rest, such as a full server, is 1.
_BAD_INPUT_CODES = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION"}
)

T = TypeVar("T")


class FailedError(RuntimeError):
    """A command failed at run time; the message is the one line to print."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        options = parse(arguments)
        return _COMMANDS[options.command](options)
    except UsageError as error:
        return _fail(str(error), 2)
    except FailedError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not flush to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


# Commands


def _serve(options: argparse.Namespace) -> int:
    from server.settings import SettingsError, load_settings

    try:
        settings = load_settings(options.config, _assignments(options.set))
    except SettingsError as error:
        raise UsageError(str(error)) from None
    # After the settings: their mistakes should not wait for the engine's import.
    from server.app import serve

    with _one_line_errors():
        return serve(settings)


def _add(options: argparse.Namespace) -> int:
    from server.sampling_flags import with_load
    from server.streams import Mode, StreamConfig, Transport
    from server.tuning_flags import new_tuning

    url = _source_url(options.url, ask_password=options.password_stdin)
    try:
        config = StreamConfig(
            options.stream,
            url,
            Mode(options.mode or "pull"),
            Transport(options.transport or "tcp"),
            options.threshold,
            new_tuning(options),
            evidence_mode_of(options),
            masks_of(options) or (),
        )
        config = with_load(config, options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _show_stream(options, _asked(options, lambda client: client.create(config)))


def _list(options: argparse.Namespace) -> int:
    from server.terminal import stream_json, stream_table

    views = _asked(options, lambda client: client.list())
    if options.json:
        print(json.dumps([stream_json(view) for view in views]))
    else:
        print("\n".join(stream_table(views, time.time())))
    return 0


def _get(options: argparse.Namespace) -> int:
    return _show_stream(options, _asked(options, lambda client: client.get(options.stream)))


def _update(options: argparse.Namespace) -> int:
    from server.rpc.client import StreamChange
    from server.sampling_flags import with_load_change
    from server.streams import Mode, Transport
    from server.tuning_flags import with_tuning

    if options.password_stdin and options.url is None:
        raise UsageError("--password-stdin needs --url with the user: rtsp://USER@HOST/PATH")
    change = StreamChange(
        url=_source_url(options.url, ask_password=options.password_stdin) if options.url else None,
        mode=Mode(options.mode) if options.mode else None,
        transport=Transport(options.transport) if options.transport else None,
        open_threshold=options.threshold,
        bundle_threshold=options.bundle_threshold,
        evidence_mode=evidence_mode_of(options),
        masks=masks_of(options),
    )
    try:
        change = with_load_change(with_tuning(change, options), options)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if change == StreamChange():
        raise UsageError(
            "nothing to update; give --url, --threshold, --cooldown, --mask or another of "
            "gvvad streams update --help"
        )
    return _show_stream(
        options, _asked(options, lambda client: client.update(options.stream, change))
    )


def _snooze(options: argparse.Namespace) -> int:
    from server.rpc.client import StreamChange
    from server.tuning_flags import snooze_until

    try:
        until_seconds = snooze_until(options, time.time())
        change = StreamChange(snooze_until_seconds=until_seconds, end_snooze=until_seconds is None)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return _show_stream(
        options, _asked(options, lambda client: client.update(options.stream, change))
    )


def _remove(options: argparse.Namespace) -> int:
    _asked(options, lambda client: client.delete(options.stream))
    return 0


def _model(options: argparse.Namespace) -> int:
    from server.terminal import fields, model_json

    content = model_json(_asked(options, lambda client: client.model()))
    print(json.dumps(content) if options.json else "\n".join(fields(content)))
    return 0


def _capacity(options: argparse.Namespace) -> int:
    from server.commands.capacity import capacity_json, capacity_text

    found = _asked(options, lambda client: client.capacity())
    print(json.dumps(capacity_json(found)) if options.json else capacity_text(found))
    return 0


def _watch(options: argparse.Namespace) -> int:
    from server.scoring import WindowScore
    from server.terminal import alert_json, alert_line, score_json, score_line

    def show(client: Client) -> int:
        for missed, item in _watched(client, options.stream):
            if isinstance(item, WindowScore):
                line, content = score_line(item, missed), score_json(item, missed)
            else:
                line, content = alert_line(item, missed), alert_json(item, missed)
            print(json.dumps(content) if options.json else line, flush=True)
        return 0

    return _asked(options, show)


def _alerts(options: argparse.Namespace) -> int:
    from server.alerts_cli import run

    return _asked(options, lambda client: run(options, client))


def _push(options: argparse.Namespace) -> int:
    from server.sender import VideoSource
    from server.streams import SourceError
    from server.terminal import push_json, push_line, score_json, score_line

    broken: list[SourceError] = []

    def send(client: Client, video: VideoSource) -> int:
        named, temporary = (None, options.stream) if options.temporary else (options.stream, "")
        frames = _until_broken(video.frames(), broken)
        began_seconds = time.monotonic()
        for missed, answer in client.push(frames, video.push, named, temporary_id=temporary):
            seconds = time.monotonic() - began_seconds
            if answer.score is not None:
                line, content = score_line(answer.score, missed), score_json(answer.score, missed)
            else:
                line, content = push_line(answer.counts, seconds), push_json(answer.counts, seconds)
            print(json.dumps(content) if options.json else line, flush=True)
        return 0

    try:
        video = VideoSource(options.video, live=options.live)
        code = _asked(options, lambda client: send(client, video))
    except SourceError as error:
        raise UsageError(error.sentence) from None
    if broken:
        raise UsageError(broken[0].sentence)
    return code


def _alerts_evidence(options: argparse.Namespace) -> int:
    def save(client: Client) -> int:
        saved = save_evidence(client, options)
        if options.json:
            print(json.dumps([str(path) for path in saved.paths]))
        elif saved.paths:
            print("\n".join(map(str, saved.paths)))
        if saved.refusal is not None:
            raise saved.refusal
        return 0

    with _one_line_errors():
        return _asked(options, save)


def _backtest(options: argparse.Namespace) -> int:
    from server.backtest_command import Attempt, run_backtest_command
    from server.engine.flags import read_engine_flags
    from server.tuning_flags import policy_tuning

    with _one_line_errors():
        tried = Attempt(options.threshold, policy_tuning(options), read_engine_flags(options))
        return run_backtest_command(options.directory, options.bundle, tried, as_json=options.json)


def _deliveries(options: argparse.Namespace) -> int:
    from server.deliveries_cli import list_deliveries, replay_deliveries

    run = list_deliveries if options.command == "deliveries list" else replay_deliveries
    return run(options, functools.partial(_asked, options))


def _calibrate(options: argparse.Namespace) -> int:
    from server.calibrate_cli import run

    with _one_line_errors():
        return _asked(options, lambda client: run(options, client))


def _bench(options: argparse.Namespace) -> int:
    settings = _assignments(options.set)
    from server.bench.command import MeasuringError, run

    try:
        with _one_line_errors():
            return run(options, settings)
    except MeasuringError as error:
        raise FailedError(str(error)) from None


def _demo(options: argparse.Namespace) -> int:
    from server.demo.command import run

    return run(options.clip, options.seconds, options.json, options.out)


def _demo_camera(options: argparse.Namespace) -> int:
    from server.demo.station import Station, run
    from server.logs import set_up
    from server.rpc.client import ClientError
    from server.streams import SourceError

    url = _source_url(options.url, ask_password=False)
    if url.scheme != "rtsp":
        raise UsageError(
            f"URL {str(url)!r} must be rtsp://HOST:PORT/PATH, where the server listens"
        )
    set_up("info", "plain")
    station = Station(options.server, options.stream, url, options.listen_host)
    try:
        return run(station, options.clip)
    except ClientError as error:
        kind = UsageError if error.code in _BAD_INPUT_CODES else FailedError
        raise kind(error.sentence) from None
    except SourceError as error:
        raise UsageError(error.sentence) from None
    except ValueError as error:
        raise UsageError(str(error)) from None


# Helpers


def _asked(options: argparse.Namespace, ask: Callable[[Client], T]) -> T:
    from server.rpc.client import Client, ClientError

    try:
        with Client(options.server) as client:
            return ask(client)
    except ClientError as error:
        kind = UsageError if error.code in _BAD_INPUT_CODES else FailedError
        raise kind(error.sentence) from None


def _until_broken(
    frames: Iterator[PushedFrame], broken: list[SourceError]
) -> Iterator[PushedFrame]:
    """Frames up to a break, which is kept for later: what came before it has its scores."""
    from server.streams import SourceError

    try:
        yield from frames
    except SourceError as error:
        broken.append(error)


def _watched(client: Client, stream_id: str | None) -> Iterator[tuple[int, WindowScore | Alert]]:
    """Scores and alerts as they come, each with what was lost before it."""
    from server.alert_records import ChangeKind
    from server.rpc.client import ClientError
    from server.scoring import WindowScore

    # Bounded: a terminal that stalls makes the server drop and tell, not this grow.
    inbox: queue.Queue[tuple[int, WindowScore | Alert] | ClientError] = queue.Queue(maxsize=256)

    def pump(watch: Watch[WindowScore] | Watch[WatchedAlert]) -> None:
        try:
            for missed, item in watch:
                if isinstance(item, WindowScore):
                    inbox.put((missed, item))
                elif item.kind in (ChangeKind.OPENED, ChangeKind.CLOSED):
                    inbox.put((missed, item.alert))
        except ClientError as error:
            inbox.put(error)

    alerts = client.watch_alerts(stream_id, include_suppressed=True)
    for watch in (client.watch_scores(stream_id), alerts):
        # Daemons: one that waits for room in the inbox must not hold up the exit.
        threading.Thread(target=pump, args=(watch,), daemon=True).start()
    while True:
        entry = inbox.get()
        if isinstance(entry, ClientError):
            raise entry
        yield entry


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a server or a replay may refuse or fail at, by exit code."""
    from server.engine.onnxruntime import EngineError

    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from None
    except (OSError, EngineError) as error:
        raise FailedError(str(error)) from None


def _show_stream(options: argparse.Namespace, view: StreamView) -> int:
    from server.terminal import fields, stream_json

    content = stream_json(view)
    print(json.dumps(content) if options.json else "\n".join(fields(content)))
    return 0


def _source_url(text: str, *, ask_password: bool) -> SourceUrl:
    from server.streams import SourceUrl

    try:
        url = SourceUrl(text)
        return SourceUrl(_with_password(text, sys.stdin.readline())) if ask_password else url
    except ValueError as error:
        raise UsageError(str(error)) from None


def _with_password(url: str, line: str) -> str:
    parts = urlsplit(url)
    # A password may hold any character; in a URL most of them mean something.
    password = line.rstrip("\r\n")
    if not parts.username or parts.password:
        raise UsageError("--password-stdin needs a URL with a user only: rtsp://USER@HOST/PATH")
    if not password:
        raise UsageError("--password-stdin found no password on standard input; pipe one in")
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))


def _assignments(texts: Sequence[str]) -> dict[str, str]:
    from server.streams import shown

    flags: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "://" in key:
            raise UsageError(
                f"--set {shown(text)!r} must be KEY=VALUE, such as --set grpc.port=50051"
            )
        flags[key.strip()] = value
    return flags


def _fail(sentence: str, code: int) -> int:
    print(f"gvvad: {' '.join(sentence.split())}", file=sys.stderr)
    return code


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "bench": _bench,
    "demo": _demo,
    "demo-camera": _demo_camera,
    "serve": _serve,
    "streams add": _add,
    "streams list": _list,
    "streams get": _get,
    "streams update": _update,
    "streams snooze": _snooze,
    "streams remove": _remove,
    "watch": _watch,
    "alerts list": _alerts,
    "alerts get": _alerts,
    "alerts ack": _alerts,
    "alerts watch": _alerts,
    "push": _push,
    "alerts evidence": _alerts_evidence,
    "model": _model,
    "capacity": _capacity,
    "backtest": _backtest,
    "calibrate": _calibrate,
    "deliveries list": _deliveries,
    "deliveries replay": _deliveries,
}
