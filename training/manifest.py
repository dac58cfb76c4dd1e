"""The manifest: which videos there are to learn from, one JSON object a line.

A label stands beside its video, and so does where it comes from: nothing is
read from a row's number or from the order of a list.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.clips import Split, TrainingError, find_clips, find_splits

MANIFEST = "manifest.jsonl"

_PATHS = ("video", "features", "captions", "spans")

Text = Annotated[str, Field(min_length=1, max_length=500)]
Number = str | int | float | bool | None


class Generation(BaseModel):
    """How a generator made a video: with the description and the seed, enough to make it again.

    Attributes:
        backend: name of the settings that were begun with.
        pipeline: class of diffusers.
        model: hub id or folder name of the weights.
        weights_sha256: that tells one set of weights from another.
        dtype: of the computation.
        steps: of denoising.
        guidance: scale of classifier-free guidance.
        negative_prompt: what it was led away from.
        frames: of the video.
        fps: of the video, Hz.
        height: pixels.
        width: pixels.
        max_tokens: of the description that it reads.
        tiling: whether pictures were decoded in tiles, which blends their seams.
        arguments: what else the pipeline was called with.
        diffusers: version of the package.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Text
    pipeline: Text
    model: Text
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    dtype: Literal["fp32", "fp16", "bf16"]
    steps: Annotated[int, Field(ge=1)]
    guidance: float
    negative_prompt: str
    frames: Annotated[int, Field(ge=1)]
    fps: Annotated[float, Field(gt=0)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    tiling: bool = False
    arguments: dict[str, Number] = Field(default_factory=dict)
    diffusers: Text


class Row(BaseModel):
    """One video.

    Attributes:
        id: its name, unique in the manifest.
        label: of the whole video; weak supervision knows no more.
        source: "synthetic" where a generator made it.
        group: camera or recording; a group is never on both sides of a split.
        split: where its dataset puts it; rows of None and "train" are shared out.
        dataset: where it comes from.
        class_name: kind of anomaly, for figures by class.
        features: `.npy` file, relative to the manifest.
        captions: `.npy` file of sentence embeddings, one a window.
        spans: `.npy` of (n, 2) first and end frame of each window; without one window k
            is frames [16 k, 16 k + 16).
        whole_first: the first crop is the whole picture, as in service; the others only train.
        video: the video file itself.
        video_sha256: of that file, where features were extracted from it.
        encoder: what made the features: a bundle's encoder hash, or a model's name and weights.
        frames: of the video.
        fps: of the video, Hz.
        anomalous: truth, half-open 0-based frame intervals; None where it is not known.
        description: what a generator was asked for.
        viewpoint: of the camera, in the description; GV-VAD's four elements.
        location: where it looks.
        subject: who or what acts.
        event: what happens; of a normal description what happens in the anomalous one.
        pair_id: joins an anomalous and a normal description of one scene.
        seed: of the generator.
        generation: how the generator made the video.
        kept: whether the filter kept it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    id: Text
    label: Literal["normal", "anomalous"]
    source: Literal["real", "synthetic"] = "real"
    group: Text
    split: Split | None = None
    dataset: str = ""
    class_name: Annotated[str, Field(alias="class")] = ""
    features: Text | None = None
    captions: Text | None = None
    spans: Text | None = None
    whole_first: bool = False
    video: Text | None = None
    video_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    encoder: Text | None = None
    frames: Annotated[int, Field(ge=1)] | None = None
    fps: Annotated[float, Field(gt=0)] | None = None
    anomalous: tuple[tuple[int, int], ...] | None = None
    description: str | None = None
    viewpoint: Text | None = None
    location: Text | None = None
    subject: Text | None = None
    event: Text | None = None
    pair_id: str | None = None
    seed: int | None = None
    generation: Generation | None = None
    kept: bool | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        last = 0
        for start, end in self.anomalous or ():
            if not last <= start < end:
                raise ValueError(
                    f"anomalous interval [{start}, {end}) must rise from {last} or later"
                )
            last = end
        if self.frames is not None and last > self.frames:
            raise ValueError(f"anomalous interval ends at {last}, beyond {self.frames} frames")
        if self.anomalous and self.label == "normal":
            raise ValueError("a normal video has no anomalous intervals")
        return self

    @property
    def synthetic(self) -> bool:
        return self.source == "synthetic"

    def to_line(self) -> str:
        """The row as it stands in a manifest, without what is not known."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Rows, and the file that their paths are relative to."""

    path: Path
    rows: tuple[Row, ...]

    def file(self, relative: str) -> Path:
        """Where a row's file lies."""
        return self.path.parent / relative


def load_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        TrainingError: no file, no row, a line that is no row, or an id twice; it names the line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"manifest {path} cannot be read ({error})") from None
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _row(line, f"{path}, line {number}")
        if row.id in rows:
            raise TrainingError(f"{path}, line {number}: id {row.id!r} stands there twice")
        rows[row.id] = row
    if not rows:
        raise TrainingError(f"manifest {path} holds no row; one JSON object a line was expected")
    return Manifest(path, tuple(rows.values()))


def open_videos(path: Path) -> Manifest:
    """Rows of a manifest, of the one in a folder, or of the clips that ground-truth files name.

    Raises:
        TrainingError: see `load_manifest` and `clip_rows`.
    """
    if not path.is_dir():
        return load_manifest(path)
    if (path / MANIFEST).is_file():
        return load_manifest(path / MANIFEST)
    return Manifest(path / MANIFEST, tuple(clip_rows(path)))


def joined(manifests: Sequence[Manifest], path: Path) -> Manifest:
    """All rows as of one manifest at that path.

    Raises:
        TrainingError: an id stands in two of them.
    """
    found: dict[str, Path] = {}
    rows: list[Row] = []
    for manifest in manifests:
        for row in manifest.rows:
            if row.id in found:
                raise TrainingError(
                    f"{row.id!r} stands in {found[row.id]} and in {manifest.path}; give each once"
                )
            found[row.id] = manifest.path
            rows.append(rebased(row, manifest.path.parent, path.parent))
    return Manifest(path, tuple(rows))


def rebased(row: Row, base: Path, folder: Path) -> Row:
    """A row whose paths, relative to `base`, are relative to `folder`."""
    paths = {name: getattr(row, name) for name in _PATHS}
    changes = {
        name: os.path.relpath(base / path, folder)
        for name, path in paths.items()
        if path is not None
    }
    return row.model_copy(update=changes)


def _row(line: str, where: str) -> Row:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{where}: a JSON object was expected ({error})") from None
    try:
        return Row.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{where}: {key + ': ' if key else ''}{first['msg']}") from None


def seed_of(name: str) -> int:
    """The seed of a generated video that is given none: 32 bits that follow from its id.

    >>> seed_of("a")
    3398926610
    """
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text("".join(f"{row.to_line()}\n" for row in rows))
    scratch.replace(path)


def clip_rows(data: Path) -> list[Row]:
    """Rows of the clips that ground-truth files name, paths relative to `data`.

    Raises:
        TrainingError: see `find_clips` and `find_splits`.
    """
    clips, splits = find_clips(data), find_splits(data)
    return [
        Row(
            id=clip.name,
            label="anomalous" if clip.anomalous else "normal",
            source="synthetic" if clip.synthetic else "real",
            group=clip.name if clip.synthetic else f"{clip.dataset}/{clip.source}",
            split=splits.get(clip.name),
            dataset=clip.dataset,
            video=clip.name,
            frames=clip.truth.frames,
            fps=clip.truth.fps,
            anomalous=clip.truth.anomalous,
        )
        for clip in clips
    ]


def split_rows(
    rows: Sequence[Row], validation_share: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """Training and validation rows; a group is never in both, test rows in neither.

    Where rows are marked "validation", they are it. Otherwise groups of real
    videos are dealt by chance until their share of either label is reached.
    Synthetic videos only train: validation asks how real footage is judged.

    Args:
        rows: a manifest's.
        validation_share: of the real videos of each label, in [0, 1).
        seed: of the choice.

    Raises:
        TrainingError: a group is on both sides, or a side lacks a label.
    """
    usable = [row for row in rows if row.split != "test" and row.kept is not False]
    marked = {row.group for row in usable if row.split == "validation"}
    leaking = [row for row in usable if row.group in marked and row.split != "validation"]
    if leaking:
        raise TrainingError(
            f"group {leaking[0].group!r} leaks: {leaking[0].id!r} of it trains and others of it "
            "validate; mark the whole group alike"
        )
    chosen = marked or _dealt_groups(usable, validation_share, seed)
    validation = [row for row in usable if row.group in chosen and not row.synthetic]
    training = [row for row in usable if row.group not in chosen]
    _check_both_labels(training, "train on")
    if validation_share or marked:
        _check_both_labels(validation, "validate on")
    return training, validation


def split_normal_rows(
    rows: Sequence[Row], validation_share: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """Normal real rows to fit what is usual to, and such that are held back; no test rows.

    Where rows are marked "validation", they are held back. Otherwise whole groups are dealt by
    chance; videos where all are of one group, since a scene of its own is learned so.

    Args:
        rows: a manifest's.
        validation_share: of the videos, in (0, 1).
        seed: of the choice.

    Raises:
        TrainingError: fewer than two such rows, or none is left on a side.
    """
    usable = [
        row
        for row in rows
        if row.label == "normal"
        and not row.synthetic
        and row.split != "test"
        and row.kept is not False
    ]
    if len(usable) < 2:
        raise TrainingError(
            f"{len(usable)} of {len(rows)} rows are real normal videos outside the test split; 2 "
            "or more are needed, to fit to and to hold back"
        )
    held_back = [row for row in usable if row.split == "validation"]
    if not held_back:
        several = len({row.group for row in usable}) > 1
        units = usable if several else [row.model_copy(update={"group": row.id}) for row in usable]
        chosen = _dealt_groups(units, validation_share, seed)
        held_back = [row for row, unit in zip(usable, units, strict=True) if unit.group in chosen]
    spared = {row.id for row in held_back}
    fitted = [row for row in usable if row.id not in spared]
    if not fitted:
        raise TrainingError(
            f"all {len(usable)} normal videos are held back, none is left to fit to; mark fewer as "
            "validation, lower validation_share, or add videos of other groups"
        )
    return fitted, held_back


def _dealt_groups(rows: Sequence[Row], share: float, seed: int) -> set[str]:
    real = [row for row in rows if not row.synthetic]
    wanted = {
        label: share * sum(row.label == label for row in real) for label in ("normal", "anomalous")
    }
    groups = sorted({row.group for row in real})
    chosen: set[str] = set()
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if all(left <= 0 for left in wanted.values()):
            break
        members = [row for row in real if row.group == groups[index]]
        if any(wanted[row.label] > 0 for row in members):
            chosen.add(groups[index])
            for row in members:
                wanted[row.label] -= 1
    return chosen


def _check_both_labels(rows: Sequence[Row], purpose: str) -> None:
    for label in ("normal", "anomalous"):
        if not any(row.label == label for row in rows):
            raise TrainingError(
                f"none of {len(rows)} videos to {purpose} is {label}; both labels are needed, "
                "each in groups of its own"
            )


def mark_tests(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """Rows of which some groups are marked as test, dealt by chance.

    Args:
        rows: none of them marked yet.
        share: of the real videos of each label, in (0, 1), or just over.
        seed: of the choice.

    Raises:
        TrainingError: rows are marked already, or a side lacks a label.
    """
    marked = [row for row in rows if row.split == "test"]
    if marked:
        raise TrainingError(
            f"{marked[0].id!r} and {len(marked) - 1} others are marked as test already; leave the "
            "share of test videos out"
        )
    groups = _dealt_groups(rows, share, seed)
    tests = [row for row in rows if row.group in groups and not row.synthetic]
    _check_both_labels(tests, "test on")
    _check_both_labels([row for row in rows if row.group not in groups], "train on")
    return [
        row.model_copy(update={"split": "test"})
        if row.group in groups and not row.synthetic
        else row
        for row in rows
    ]
