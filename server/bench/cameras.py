"""The process behind `CameraFarm`: many cameras on one RTSP port, on one thread.

`python -m server.bench.cameras` reads its cameras from the first line of standard
input and writes the port, or an error in one sentence, as a line of JSON. Every
further line of input is answered by a line of figures. The end of input ends it:
it never outlives whoever started it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

from server.bench.connection import Connection, Counts, Site
from server.bench.footage import FootageError, read_footage
from server.bench.pacer import Camera, Pacer
from server.bench.rtp import RtpClip, RtpStream
from server.streams import SourceError

_BACKLOG = 4096
_SPARE_FILES = 64


def build(plan: dict[str, Any], now_seconds: float) -> dict[str, Camera]:
    """The cameras of a plan, by path.

    Each has its own source, numbers and place in its clip, all fixed by the seed, so that
    key frames of cameras with the same clip do not coincide.

    Args:
        plan: as `CameraFarm` writes it.
        now_seconds: on the clock that paces them.

    Raises:
        SourceError: a clip cannot be read as video.
        FootageError: a clip is none that a camera would send.
    """
    dice = random.Random(plan["seed"])
    clips = {name: RtpClip(read_footage(Path(name))) for name in plan["clips"]}
    cameras = {}
    for path, clip_number, fps in plan["cameras"]:
        clip = clips[plan["clips"][clip_number]]
        ssrc, timestamp, sequence = (dice.getrandbits(bits) for bits in (32, 32, 16))
        start_seconds = now_seconds - dice.uniform(0, len(clip.frames) / fps)
        cameras[path] = Camera(RtpStream(clip, fps, ssrc, sequence, timestamp), start_seconds)
    return cameras


async def serve(plan: dict[str, Any]) -> int:
    """Show a plan's cameras until standard input ends; returns the exit code."""
    loop = asyncio.get_running_loop()
    try:
        cameras = build(plan, loop.time())
    except (SourceError, FootageError) as error:
        _say({"error": str(error)})
        return 2
    _allow_files(len(cameras))
    site = Site(cameras, Pacer(loop), Counts(), set())
    # What is here stays; walking through it again and again would make frames late.
    gc.collect()
    gc.freeze()
    server = await loop.create_server(lambda: Connection(site), "127.0.0.1", 0, backlog=_BACKLOG)
    async with server:
        _say({"port": server.sockets[0].getsockname()[1]})
        await _answer_questions(site)
    return 0


async def _answer_questions(site: Site) -> None:
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    while await questions.readline():
        _say(
            {
                "cpu_seconds": time.process_time(),
                "frames_sent": site.counts.sent,
                "frames_refused": site.counts.refused,
                "lateness_p99_seconds": site.pacer.lateness.take_quantile_seconds(0.99),
                "readers": site.readers,
            }
        )


def _allow_files(cameras: int) -> None:
    """Raise the soft limit of open files to what two readers a camera need, or to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * cameras + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _say(content: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    line = sys.stdin.readline()
    sys.exit(asyncio.run(serve(json.loads(line))) if line else 0)
