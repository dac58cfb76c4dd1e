"""How far a bundle's encoder is from a reference: on hard pictures, on real ones, in alarms.

A cosine says little by itself. What counts is whether scores and alarms change, so the
bundle and its reference are also run over the same clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.bundle import Bundle, BundleError, Precision
from server.contract import Feature, Image
from server.engine.choice import Engine
from server.ingest.video import SourceError, file_windows
from server.metrics import pooled, roc_auc
from server.preprocess import PreprocessSpec
from training.manifest import Manifest, Row
from training.scored import VideoScores, by_bundle

REAL = "real"

LEAST_COSINE: dict[Precision, float] = {
    "fp32": 0.9999,
    "fp16": 0.999,
    "bf16": 0.99,
    "int8": 0.99,
    "int8-symmetric": 0.99,
    "fp8": 0.99,
}
MOST_ERROR_OF_FP32 = 1e-3
"""Of a number of a feature, for features of norm 10."""

_EIGHT_BITS = ("int8", "int8-symmetric", "fp8")
BATCH = 4
_SEED = 11

Encode = Callable[[Image], Feature]


@dataclass(frozen=True, slots=True)
class Parity:
    """Features of one kind of windows against the reference's.

    Attributes:
        kind: of windows.
        windows: how many.
        max_error: largest absolute difference of a number.
        mean_cosine: over windows.
        min_cosine: of the worst window.
    """

    kind: str
    windows: int
    max_error: float
    mean_cosine: float
    min_cosine: float


@dataclass(frozen=True, slots=True)
class Effect:
    """What operators would notice.

    Attributes:
        videos: that both scored.
        reference_auc: of frames; None where the truth has one label alone.
        auc: the same of the bundle.
        max_score_change: of a window.
        reference_alarms: opened events at the bundle's threshold, all videos.
        alarms: the same of the bundle.
        reference_false_alarms: those of them in videos without an anomaly.
        false_alarms: the same of the bundle.
    """

    videos: int
    reference_auc: float | None
    auc: float | None
    max_score_change: float
    reference_alarms: int
    alarms: int
    reference_false_alarms: int
    false_alarms: int


def hard_windows(bundle: Bundle) -> dict[str, Image]:
    """(n, S, H, W, 3) windows of pictures that encoders stumble over, by kind."""
    size, sampled = bundle.manifest.preprocess, bundle.manifest.window.sampled_frames
    random = np.random.default_rng(_SEED)
    whole = (sampled, size.height, size.width, 3)
    rows = np.indices((size.height, size.width)).sum(0) // 8 % 2
    pictures = {
        "black": np.zeros(whole, np.uint8),
        "white": np.full(whole, 255, np.uint8),
        "one colour": np.broadcast_to(np.array([0, 0, 255], np.uint8), whole),
        "noise": random.integers(0, 256, whole, np.uint8),
        "checkerboard": np.broadcast_to((255 * rows[..., None]).astype(np.uint8), whole),
        "wide strip": _strip(size, sampled, random, upright=False),
        "tall strip": _strip(size, sampled, random, upright=True),
    }
    return {kind: np.ascontiguousarray(window)[None] for kind, window in pictures.items()}


def _strip(
    size: PreprocessSpec, sampled: int, random: np.random.Generator, *, upright: bool
) -> Image:
    """What is left of a picture 16 times as long as wide: a strip amid black."""
    window = np.zeros((sampled, size.height, size.width, 3), np.uint8)
    side = size.width if upright else size.height
    width = max(1, side // 16)
    start = (side - width) // 2
    cut = (slice(None), slice(None), slice(start, start + width))
    place = cut if upright else (cut[0], cut[2])
    window[place] = random.integers(0, 256, window[place].shape, np.uint8)
    return window


def real_windows(paths: Sequence[Path], bundle: Bundle, count: int) -> Image:
    """(n, S, H, W, 3) The first window of clips that are spread evenly over the list.

    Raises:
        BundleError: no clip can be read.
    """
    places = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    found = [image for place in places for image in _first_window(paths[place], bundle)]
    if not found:
        raise BundleError(f"none of {len(places)} clips can be read; give a folder of whole clips")
    return np.stack(found)


def _first_window(path: Path, bundle: Bundle) -> Iterator[Image]:
    spec = bundle.manifest
    try:
        for window in file_windows(path, spec.window, spec.preprocess):
            yield window.images
            return
    except SourceError:
        return


def parity(
    encode: Encode, reference: Encode, windows: dict[str, Image], tick: Callable[[int], None]
) -> list[Parity]:
    """Compare features kind by kind.

    Args:
        encode: of the bundle.
        reference: what it should agree with.
        windows: (n, S, H, W, 3) of each kind.
        tick: told how many windows are done.

    Raises:
        BundleError: features are of different widths.
    """
    return [_compared(kind, encode, reference, images, tick) for kind, images in windows.items()]


def _compared(
    kind: str, encode: Encode, reference: Encode, images: Image, tick: Callable[[int], None]
) -> Parity:
    errors, cosines = [], []
    for start in range(0, len(images), BATCH):
        part = np.ascontiguousarray(images[start : start + BATCH])
        found, expected = encode(part), reference(part)
        if found.shape != expected.shape:
            raise BundleError(
                f"the bundle's features are {found.shape[1]} wide, the reference's "
                f"{expected.shape[1]}; compare it with what it was exported from"
            )
        errors.append(float(np.abs(found - expected).max()))
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        cosines += ((found * expected).sum(1) / np.maximum(lengths, 1e-12)).tolist()
        tick(len(part))
    return Parity(kind, len(images), max(errors), float(np.mean(cosines)), min(cosines))


def scored(
    bundle: Bundle, manifest: Manifest, tick: Callable[[], None], engine: Engine | None = None
) -> dict[str, VideoScores]:
    """Videos by id, as the server would score them with that engine."""
    videos, _ = by_bundle(bundle, manifest, list(manifest.rows), tick, engine)
    return {video.row.id: video for video in videos}


def effect(
    threshold: float, reference: dict[str, VideoScores], ours: dict[str, VideoScores]
) -> Effect:
    """What a bundle's scores of the same videos change, at its own threshold.

    Raises:
        BundleError: no video was scored by both.
    """
    shared = sorted(ours.keys() & reference.keys())
    if not shared:
        raise BundleError("no clip can be scored by both; give a folder of whole clips")
    pairs = [(reference[name], ours[name]) for name in shared]
    change = max(float(np.abs(np.subtract(one.scores, other.scores)).max()) for one, other in pairs)
    alarms = [[len(video.alarms(threshold, 0.0)) for video in pair] for pair in pairs]
    calm = [not is_anomalous(pair[0].row) for pair in pairs]
    before, after = np.array(alarms).T
    return Effect(
        videos=len(shared),
        reference_auc=_auc([one for one, _ in pairs]),
        auc=_auc([other for _, other in pairs]),
        max_score_change=change,
        reference_alarms=int(before.sum()),
        alarms=int(after.sum()),
        reference_false_alarms=int(before[calm].sum()),
        false_alarms=int(after[calm].sum()),
    )


def is_anomalous(row: Row) -> bool:
    """Whether anything in a video is."""
    return row.label == "anomalous"


def _auc(videos: Sequence[VideoScores]) -> float | None:
    return roc_auc(*pooled([(video.labels(), video.back_filled()) for video in videos]))


def check(precision: Precision, found: Sequence[Parity]) -> None:
    """Refuse an encoder that is not what its precision promises.

    Of 8 bits only real windows are judged: nobody quantises for noise.

    Raises:
        BundleError: a cosine is too low, or in fp32 an error too large.
    """
    least = LEAST_COSINE[precision]
    for one in found:
        if precision in _EIGHT_BITS and one.kind != REAL:
            continue
        if not one.mean_cosine >= least:
            raise BundleError(
                f"features of {one.kind} windows have a cosine of {one.mean_cosine:.5f} to the "
                f"reference's, {precision} should reach {least}; export the bundle again"
            )
        if precision == "fp32" and not one.max_error <= MOST_ERROR_OF_FP32:
            raise BundleError(
                f"features of {one.kind} windows differ by {one.max_error:.2g} from the "
                f"reference's, fp32 by at most {MOST_ERROR_OF_FP32:g}; export the bundle again"
            )
