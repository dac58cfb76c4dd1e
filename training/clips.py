"""Training clips: what the ground-truth files under a folder name, and how they are split.

Every clip has a source, the recording or camera that it comes from. Folds are
made of whole sources: no clip is judged by a model that saw its source.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from server.truth import TRUTH_FILE, ClipTruth, TruthError, load_truth

SYNTHETIC = "synthetic"
PAIRS_FILE = "same_camera_pairs.json"

Split = Literal["train", "validation", "test"]

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


class TrainingError(ValueError):
    """Input that cannot be trained on; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled clip.

    Attributes:
        name: dataset folder and path inside it.
        dataset: folder of its ground-truth file.
        source: the recording that it comes from; clips of one are never split.
        synthetic: generated, weighed by SSLS.
        truth: frames and anomalous intervals.
    """

    name: str
    dataset: str
    source: str
    synthetic: bool
    truth: ClipTruth

    @property
    def anomalous(self) -> bool:
        """The clip's label: anything in it is anomalous."""
        return bool(self.truth.anomalous)

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, object]) -> Clip:
        """Inverse of `to_json`, after a round trip through JSON."""
        truth = content["truth"]
        assert isinstance(truth, dict)
        spans = tuple((start, end) for start, end in truth["anomalous"])
        return cls(
            str(content["name"]),
            str(content["dataset"]),
            str(content["source"]),
            bool(content["synthetic"]),
            ClipTruth(truth["frames"], truth["fps"], spans),
        )


def find_clips(data: Path) -> list[Clip]:
    """Clips that `DATA/*/ground_truth.json` (or `DATA/ground_truth.json`) name, by name.

    A clip's `source` is its entry's, else its dataset; a dataset whose entries
    are generated says so by a `synthetic: true` in each entry or by "generated" in
    its folder's name.

    Raises:
        TrainingError: no folder, no ground truth, no clip in it, or a broken file.
    """
    if not data.is_dir():
        raise TrainingError(f"{data} is not a folder; give the folder that holds the clips")
    files = sorted([*data.glob(f"*/{TRUTH_FILE}"), *data.glob(TRUTH_FILE)])
    if not files:
        raise TrainingError(f"{data} holds no {TRUTH_FILE}, neither itself nor one folder down")
    try:
        clips = [clip for file in files for clip in _clips_of(file, data)]
    except TruthError as error:
        raise TrainingError(str(error)) from None
    if not clips:
        raise TrainingError(f"the {TRUTH_FILE} under {data} names no clip; add an entry per clip")
    return sorted(clips, key=lambda clip: clip.name)


def _clips_of(file: Path, data: Path) -> list[Clip]:
    dataset = file.parent.resolve().name
    prefix = "" if file.parent == data else f"{file.parent.name}/"
    clips = []
    truths = load_truth(file)
    notes = json.loads(file.read_bytes())
    for name, truth in truths.items():
        synthetic = notes[name].get("synthetic", "generated" in dataset)
        source = notes[name].get("source", dataset)
        if not isinstance(synthetic, bool) or not isinstance(source, str) or not source:
            raise TrainingError(
                f"{file}: {name[:200]!r} must have a `source` that is text and a `synthetic` "
                "that is true or false, or neither"
            )
        source = SYNTHETIC if synthetic else source
        clips.append(Clip(prefix + name, dataset, source, synthetic, truth))
    return clips


def find_splits(data: Path) -> dict[str, Split]:
    """Where its dataset puts a clip, by its name, as far as a ground truth's `split` says so.

    Raises:
        TrainingError: an entry says something else.
    """
    splits: dict[str, Split] = {}
    for file in sorted([*data.glob(f"*/{TRUTH_FILE}"), *data.glob(TRUTH_FILE)]):
        prefix = "" if file.parent == data else f"{file.parent.name}/"
        for name, entry in json.loads(file.read_bytes()).items():
            said = entry.get("split")
            if said is None:
                continue
            if not isinstance(said, str) or said not in _SPLITS:
                raise TrainingError(
                    f"{file}: split of {name[:200]!r} must be one of {', '.join(_SPLITS)}, or "
                    f"not be there; got {str(said)[:50]!r}"
                )
            splits[prefix + name] = _SPLITS[said]
    return splits


def find_mates(data: Path) -> dict[str, tuple[str, ...]]:
    """Normal clips of the same scene as an anomalous one, by its name.

    From `same_camera_pairs.json` beside a ground truth: a list of normal clip,
    anomalous clip and, unread, their similarity.

    Raises:
        TrainingError: such a file is there and is something else.
    """
    mates: dict[str, tuple[str, ...]] = {}
    for file in sorted([*data.glob(f"*/{PAIRS_FILE}"), *data.glob(PAIRS_FILE)]):
        prefix = "" if file.parent == data else f"{file.parent.name}/"
        for normal, anomalous in _pairs(file):
            mates[prefix + anomalous] = (*mates.get(prefix + anomalous, ()), prefix + normal)
    return mates


def _pairs(file: Path) -> list[tuple[str, str]]:
    expected = f"{file} must be a list of [normal clip, anomalous clip, similarity]"
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{expected} ({error})") from None
    if not isinstance(content, list):
        raise TrainingError(f"{expected}, got {type(content).__name__}")
    for pair in content:
        if not isinstance(pair, list) or [type(name) for name in pair[:2]] != [str, str]:
            raise TrainingError(f"{expected}, one entry is something else")
    return [(normal, anomalous) for normal, anomalous, *_ in content]


def source_folds(clips: list[Clip], folds: int) -> dict[str, int]:
    """Deal whole sources to folds, balanced in clips of either label.

    A fixed rule without chance: the largest source first, each to the fold
    where it makes the counts of both labels most even.

    Returns:
        Fold of every source, 0 to folds - 1.

    Raises:
        TrainingError: fewer sources than folds.
    """
    sources = sorted({clip.source for clip in clips})
    if len(sources) < folds:
        raise TrainingError(
            f"{len(sources)} sources cannot fill {folds} folds; add clips of other sources "
            "or lower `folds` in the recipe"
        )
    counts = {source: _label_counts(clips, source) for source in sources}
    totals = [max(1, sum(count[label] for count in counts.values())) for label in (0, 1)]
    filled = [[0.0, 0.0] for _ in range(folds)]
    dealt = {}
    for source in sorted(sources, key=lambda s: (-sum(counts[s]), s)):
        shares = [counts[source][label] / totals[label] for label in (0, 1)]
        # Adding a share x to a fold at level f raises the sum of squares by x (2 f + x).
        fold = min(
            range(folds),
            key=lambda f: sum(
                x * (2 * level + x) for x, level in zip(shares, filled[f], strict=True)
            ),
        )
        dealt[source] = fold
        filled[fold] = [level + x for x, level in zip(shares, filled[fold], strict=True)]
    return dealt


def _label_counts(clips: list[Clip], source: str) -> tuple[int, int]:
    labels = [clip.anomalous for clip in clips if clip.source == source]
    return labels.count(False), labels.count(True)
