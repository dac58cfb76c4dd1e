"""A camera of our own: push a clip as a real RTSP session, in real time.

`python -m server.demo.camera --clip FILE --url rtsp://127.0.0.1:PORT/live
--seconds N` plays the clip from its start as often as it takes. At each start it
says on standard output, in one JSON line, at which wall-clock time the clip's
first frame left, so that a capture time can be traced back to a frame. H.264 is
sent as it is; anything else is encoded on the way. Sound is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video

from server.ingest.video import decode, open_file, video_stream
from server.streams import SourceError

CONNECT_SECONDS = 20.0
"""How long to keep trying, unless told otherwise, while nobody listens yet."""

_RETRY_SECONDS = 0.1
_CLOCK = Fraction(1, 90_000)  # what RTP counts video in
_DEFAULT_FPS = 25


@dataclass(frozen=True, slots=True)
class Turn:
    """One start of the clip.

    Attributes:
        turn: 0 the first time, one more each time it plays again.
        started_seconds: UTC, when its first frame left.
        fps: of the clip, by its header.
    """

    turn: int
    started_seconds: float
    fps: float


@dataclass(frozen=True, slots=True)
class Timed:
    """A packet with its place on the camera's clock.

    Attributes:
        packet: H.264, timed since the first packet of the session.
        due_seconds: when to send it, since the first packet of the session.
        opens_turn: the first packet of a turn.
    """

    packet: av.Packet[av.video.VideoStream]
    due_seconds: float
    opens_turn: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where to push.

    Attributes:
        url: rtsp://HOST:PORT/PATH that listens.
        connect_seconds: how long to keep trying while nobody listens yet.
    """

    url: str
    connect_seconds: float = CONNECT_SECONDS


def push(clip: Path, target: Target, seconds: float, announce: Callable[[Turn], None]) -> None:
    """Play `clip` for that long.

    Args:
        clip: any video.
        target: where to.
        seconds: how long; the clip starts again as often as it takes.
        announce: told each time the clip starts.

    Raises:
        SourceError: the clip cannot be read as video.
        OSError: nobody listens there, or the other side hung up.
    """
    with open_file(clip) as source:
        video = video_stream(source, str(clip))
        rate = video.average_rate or Fraction(_DEFAULT_FPS)
        as_it_is = video.codec_context.name == "h264" and video.pix_fmt in ("yuv420p", "yuvj420p")
        output, sent = _connect(target, video, rate, as_it_is=as_it_is)
    with output:
        packets = _copied(clip) if as_it_is else _encoded(clip, sent)
        started, turn = time.monotonic(), 0
        for timed in packets:
            if timed.due_seconds >= seconds:
                return
            _sleep_until(started + timed.due_seconds)
            if timed.opens_turn:
                announce(Turn(turn, time.time(), float(rate)))
                turn += 1
            timed.packet.stream = sent
            output.mux(timed.packet)


def _connect(
    target: Target, video: av.video.VideoStream, rate: Fraction, *, as_it_is: bool
) -> tuple[av.container.OutputContainer, av.video.VideoStream]:
    deadline = time.monotonic() + target.connect_seconds
    while True:
        output = av.open(target.url, "w", format="rtsp", options={"rtsp_transport": "tcp"})
        sent = output.add_stream_from_template(video) if as_it_is else _encoder(output, video, rate)
        try:
            output.start_encoding()
        except OSError:
            output.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return output, sent


def _encoder(
    output: av.container.OutputContainer, video: av.video.VideoStream, rate: Fraction
) -> av.video.VideoStream:
    sent = output.add_stream("libx264", rate=rate)
    sent.width, sent.height = video.width // 2 * 2, video.height // 2 * 2
    sent.pix_fmt = "yuv420p"
    sent.codec_context.time_base = _CLOCK
    sent.codec_context.gop_size = max(1, round(rate))
    sent.options = {"preset": "veryfast", "tune": "zerolatency"}
    return sent


def _copied(clip: Path) -> Iterator[Timed]:
    """The clip's own packets, again and again, on one rising clock."""
    offset = 0
    while True:
        count, base, last = 0, 0, 0
        with open_file(clip) as source:
            video = video_stream(source, str(clip))
            for packet in source.demux(video):
                if packet.dts is None or packet.pts is None:
                    continue
                if count == 0:
                    base = packet.dts - offset
                packet.dts -= base
                packet.pts -= base
                last = packet.dts
                yield Timed(packet, float(last * packet.time_base), count == 0)
                count += 1
        offset = last + max(1, round((last - offset) / max(1, count - 1)))


def _encoded(clip: Path, sent: av.video.VideoStream) -> Iterator[Timed]:
    """The clip's frames encoded on the way, again and again, on one rising clock."""
    offset_seconds = 0.0
    while True:
        count, base_seconds, last_seconds = 0, 0.0, 0.0
        with open_file(clip) as source:
            for frame in decode(source, video_stream(source, str(clip))):
                if count == 0:
                    base_seconds = frame.pts_seconds - offset_seconds
                last_seconds = frame.pts_seconds - base_seconds
                picture = frame.picture.reformat(sent.width, sent.height, "yuv420p")
                picture.pts, picture.time_base = round(last_seconds / _CLOCK), _CLOCK
                for packet in sent.encode(picture):
                    yield Timed(packet, last_seconds, count == 0)
                count += 1
        offset_seconds = last_seconds + (last_seconds - offset_seconds) / max(1, count - 1)


def _sleep_until(monotonic_seconds: float) -> None:
    left = monotonic_seconds - time.monotonic()
    if left > 0:
        time.sleep(left)


def main(argv: list[str]) -> int:
    """The camera's command line; exit code 2 for a clip or URL that does not work."""
    parser = argparse.ArgumentParser(prog="python -m server.demo.camera", description=__doc__)
    parser.add_argument("--clip", type=Path, required=True, help="any video that FFmpeg decodes")
    parser.add_argument("--url", required=True, help="rtsp://HOST:PORT/PATH that listens")
    parser.add_argument("--seconds", type=float, required=True, help="how long to play")
    parser.add_argument(
        "--connect-seconds",
        type=float,
        default=CONNECT_SECONDS,
        help="how long to keep trying while nobody listens (default %(default)g)",
    )
    wanted = parser.parse_args(argv)
    target = Target(wanted.url, wanted.connect_seconds)
    try:
        push(wanted.clip, target, wanted.seconds, _say)
    except SourceError as error:
        print(error.sentence, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{wanted.url} does not take the stream: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _say(turn: Turn) -> None:
    print(json.dumps(asdict(turn)), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
