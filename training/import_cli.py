"""gvvad-train import: published lists and annotations to a manifest, with a bar."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from training.clips import TrainingError
from training.importers.clip_folders import import_clips
from training.importers.datasets import LAYOUTS
from training.importers.layouts import import_lists, mark_kept
from training.importers.lists import ListFile
from training.importers.options import ImportOptions
from training.manifest import Row, write_manifest

CLIPS = "clips"
FILTERED = "gv-vad"

_EPILOG = """\
examples:
  gvvad-train import ucf-crime --train-list ucf-i3d.list --test-list ucf-i3d-test.list \\
    --features UCF_Train_ten_crop_i3d --annotations Temporal_Anomaly_Annotation.txt \\
    --encoder i3d --out ucf/manifest.jsonl
  gvvad-train import gv-vad --train-list ucfg1-clip.list --kept-list ucfg2-clip.list \\
    --features features --crops-first --encoder clip --out gv/manifest.jsonl
  gvvad-train import clips --videos CLIPS --out clips/manifest.jsonl

annotations, whatever the dataset: lines of `name [class] [frames] start end ...`; a folder of
frame masks NAME.npy, or of NAME_gt/*.bmp; UCSD's .m file. A label is told by a video's name:
a list or an annotation that contradicts it is refused, and the order of a list says nothing.
"""


@dataclass(frozen=True, slots=True)
class Count:
    """How many videos of a kind there are."""

    split: str
    label: str
    source: str
    class_name: str
    videos: int

    def to_json(self) -> dict[str, object]:
        return {
            "split": self.split,
            "label": self.label,
            "source": self.source,
            "class": self.class_name,
            "videos": self.videos,
        }


def add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "import",
        help="a published dataset's lists, features and annotations to a manifest",
        description="Read the lists that a dataset is published with, find every file that they "
        "name, and write a manifest to train and evaluate on. Features that are a file a crop, "
        "or crops first, are written anew beside it; others stay where they are.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        choices=(*LAYOUTS, CLIPS),
        help=f"{', '.join(LAYOUTS)}; or {CLIPS}, a folder with ground_truth.json",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the manifest")
    _add_inputs(parser)
    parser.add_argument("--encoder", metavar="NAME", help="what made the features")
    parser.add_argument("--fps", type=float, metavar="HZ", help="frame rate of all videos")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    for split in ("train", "test"):
        parser.add_argument(
            f"--{split}-list",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help=f"a feature file or a video of the {split} split a line; may be given again",
        )
    parser.add_argument(
        "--kept-list",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"{FILTERED}: what the filter left of the generated videos of the training list",
    )
    parser.add_argument(
        "--features", type=Path, metavar="FOLDER", help="of feature files (default: as listed)"
    )
    parser.add_argument(
        "--feature-suffix",
        metavar="TEXT",
        help="what makes a video's name its feature file's, as in _i3d.npy (default: as listed)",
    )
    parser.add_argument(
        "--crops-first",
        action="store_true",
        help="feature files are (crops, windows, D) instead of (windows, crops, D)",
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="PATH", help="which frames are anomalous; see below"
    )
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="of listed videos; of clips")
    parser.add_argument(
        "--captions", type=Path, metavar="FOLDER", help="of sentence embeddings, a file a video"
    )
    parser.add_argument(
        "--captions-suffix",
        metavar="TEXT",
        default="_emb.npy",
        help="what makes a video's name its embeddings' file's (default %(default)s)",
    )


def run_import(options: argparse.Namespace) -> None:
    """Import.

    Raises:
        TrainingError: lists, features or annotations cannot be used.
    """
    _check(options)
    out: Path = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        import_clips(options.videos, out.parent)
        if options.dataset == CLIPS
        else _import_listed(options)
    )
    write_manifest(out, rows)
    counts = count_rows(rows)
    if options.json:
        listed = [count.to_json() for count in counts]
        print(json.dumps({"manifest": str(out), "rows": len(rows), "counts": listed}))
        return
    print("split       label      source     class              videos")
    for count in counts:
        print(
            f"{count.split:12}{count.label:11}{count.source:11}{count.class_name[:18]:18}"
            f"{count.videos:7}"
        )
    print(f"{len(rows)} videos in {out}")


def _check(options: argparse.Namespace) -> None:
    lists = [*options.train_list, *options.test_list]
    if options.dataset == CLIPS:
        if options.videos is None or lists:
            raise TrainingError("clips are found by their folder alone: give --videos, no list")
    elif not lists:
        raise TrainingError("no list says which videos there are; give --train-list, --test-list")
    if options.kept_list and options.dataset != FILTERED:
        raise TrainingError(
            f"--kept-list ({options.kept_list[0]}) is of generated videos, {options.dataset} has "
            f"none; import {FILTERED}"
        )


def _import_listed(options: argparse.Namespace) -> list[Row]:
    layout = LAYOUTS[options.dataset]
    lists = [ListFile(path, "train") for path in options.train_list]
    lists += [ListFile(path, "test") for path in options.test_list]
    told = ImportOptions(
        output=options.out.parent,
        features=options.features,
        feature_suffix=options.feature_suffix,
        crops_first=options.crops_first,
        annotations=options.annotations,
        videos=options.videos,
        captions=options.captions,
        captions_suffix=options.captions_suffix,
        encoder=options.encoder,
        fps=options.fps,
    )
    rows = import_lists(
        layout, lists, told, lambda videos: tqdm(videos, "import", unit="video", disable=None)
    )
    return mark_kept(layout, rows, options.kept_list) if options.kept_list else rows


def count_rows(rows: Sequence[Row]) -> list[Count]:
    """Videos by split, label, source and class, in this order; "-" where there is none."""
    counted = Counter(
        (row.split or "-", row.label, row.source, row.class_name or "-") for row in rows
    )
    return [Count(*kind, videos) for kind, videos in sorted(counted.items())]
