"""Small pictures of a video, for people to look at."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from server.contract import Image
from server.ingest.video import SourceError, decode_file, open_file


def thumbnails(path: Path | None, frames: int, count: int, width: int = 200) -> list[Image]:
    """Frames spread evenly over a video; none, or fewer, where it cannot be read.

    Args:
        path: of the video; None where there is none.
        frames: that it has.
        count: of pictures.
        width: of each, pixels; their height follows.
    """
    if path is None or not path.is_file():
        return []
    wanted = {int((n + 0.5) * frames / count) for n in range(count)}
    found: list[Image] = []
    try:
        with open_file(path) as container:
            for number, frame in enumerate(decode_file(container, path.name)):
                if number in wanted:
                    found.append(_small(frame.picture, width))
                if len(found) == len(wanted):
                    break
    except SourceError:
        return found
    return found


def _small(picture: av.VideoFrame, width: int) -> Image:
    height = max(2, round(picture.height * width / picture.width))
    return picture.reformat(width, height, "rgb24").to_ndarray().astype(np.uint8)
