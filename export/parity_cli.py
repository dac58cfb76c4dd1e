"""gvvad-export verify against a reference: parity and its effect, as a report in the bundle."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from export.parity import (
    REAL,
    Effect,
    Encode,
    Parity,
    check,
    effect,
    hard_windows,
    parity,
    real_windows,
)
from server.bundle import Bundle, BundleError, load_bundle
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from training.clips import TrainingError
from training.encoders import EncoderChoice
from training.manifest import Manifest, open_videos

REPORT, FIGURES = "verify.md", "verify.json"

_REAL_WINDOWS = 32


@dataclass(frozen=True, slots=True)
class Compared:
    """A bundle beside its reference.

    Attributes:
        bundle_id: sha256 of its manifest.
        precision: of its encoder.
        engine: what ran it.
        reference: what it was compared with.
        parity: by kind of windows.
        effect: on clips; None where there are none, or the reference is no bundle.
    """

    bundle_id: str
    precision: str
    engine: str
    reference: str
    parity: tuple[Parity, ...]
    effect: Effect | None


def add_parity(parser: argparse.ArgumentParser) -> None:
    """Flags for what a bundle is compared with."""
    group = parser.add_argument_group("compare features, and write verify.md into the bundle")
    group.add_argument("--reference", type=Path, metavar="BUNDLE", help="the same in fp32")
    group.add_argument("--model", help="the tower in torch: open_clip's name, or a JSON file")
    group.add_argument("--pretrained", help="with --model: open_clip's tag, or a weights file")
    group.add_argument(
        "--backtest",
        type=Path,
        metavar="CLIPS",
        help="real clips with their truth: their features, and with --reference AUC and alarms",
    )


def wants_parity(options: argparse.Namespace) -> bool:
    """Whether a comparison was asked for.

    Raises:
        TrainingError: clips without anything to compare with, or two references.
    """
    asked = options.reference is not None or options.model is not None
    if options.backtest is not None and not asked:
        raise TrainingError("--backtest compares: give --reference BUNDLE, or --model as well")
    if options.reference is not None and options.model is not None:
        raise TrainingError("--reference and --model are two references; give one")
    return asked


def run_parity(options: argparse.Namespace) -> Compared:
    """Compare, write the report, refuse what is too far off.

    Raises:
        TrainingError, BundleError: the reference cannot be had, or the bundle is too far off;
            the report is there then as well.
    """
    bundle = load_bundle(options.directory)
    clips = None if options.backtest is None else open_videos(options.backtest)
    windows = hard_windows(bundle)
    if clips is not None:
        paths = [clips.file(str(row.video)) for row in clips.rows if row.video is not None]
        windows[REAL] = real_windows(paths, bundle, _REAL_WINDOWS)
    total = sum(len(images) for images in windows.values())
    engine = OnnxDetector(bundle, EngineOptions())
    name, reference = _reference(options, bundle)
    with tqdm(total=total, desc="features", unit="window", disable=None) as bar:
        found = parity(engine.encode, reference, windows, bar.update)
    compared = Compared(
        bundle.bundle_id,
        bundle.manifest.encoder.graph.precision,
        engine.name,
        name,
        tuple(found),
        _effect(options, bundle, clips),
    )
    _write(options.directory, compared)
    check(bundle.manifest.encoder.graph.precision, found)
    return compared


def _reference(options: argparse.Namespace, bundle: Bundle) -> tuple[str, Encode]:
    if options.reference is not None:
        other = load_bundle(options.reference)
        if (other.manifest.window, other.manifest.preprocess) != (
            bundle.manifest.window,
            bundle.manifest.preprocess,
        ):
            raise BundleError(
                f"{options.reference} sees other windows or pictures than {options.directory}; "
                "give one that was exported from the same model"
            )
        told = f"{other.manifest.name}, {other.manifest.encoder.graph.precision}"
        return told, OnnxDetector(other, EngineOptions()).encode
    sampled = bundle.manifest.window.sampled_frames
    choice = EncoderChoice(None, options.model, options.pretrained, sampled)
    return f"torch, {Path(options.model).name}", choice.load().encode


def _effect(options: argparse.Namespace, bundle: Bundle, clips: Manifest | None) -> Effect | None:
    if clips is None or options.reference is None:
        return None
    with tqdm(total=2 * len(clips.rows), desc="clips", unit="clip", disable=None) as bar:
        return effect(bundle, load_bundle(options.reference), clips, bar.update)


def _write(directory: Path, found: Compared) -> None:
    for name, text in (
        (FIGURES, json.dumps(asdict(found), indent=1) + "\n"),
        (REPORT, markdown(found)),
    ):
        scratch = directory / f".{name}"
        scratch.write_text(text)
        scratch.replace(directory / name)


def markdown(found: Compared) -> str:
    """The report."""
    parts = [
        "# Verified against a reference",
        f"Bundle `{found.bundle_id[:12]}`, {found.precision}, run by {found.engine}; reference: "
        f"{found.reference}. Errors are the largest difference of a number of a feature.",
        _parity_table(found.parity),
        *([] if found.effect is None else [_effect_table(found.effect)]),
    ]
    return "\n\n".join(parts) + "\n"


def _parity_table(rows: Sequence[Parity]) -> str:
    lines = [
        "| windows | number | largest error | mean cosine | lowest cosine |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.kind} | {one.windows} | {one.max_error:.2g} | {one.mean_cosine:.6f} "
        f"| {one.min_cosine:.6f} |"
        for one in rows
    ]
    return "\n".join(lines)


def _effect_table(found: Effect) -> str:
    return "\n".join(
        [
            f"| on {found.videos} clips | reference | bundle |",
            "|---|---|---|",
            f"| ROC AUC of frames | {_figure(found.reference_auc)} | {_figure(found.auc)} |",
            f"| opened events | {found.reference_alarms} | {found.alarms} |",
            f"| of these in normal clips | {found.reference_false_alarms} | {found.false_alarms} |",
            f"| largest change of a score | | {found.max_score_change:.3g} |",
        ]
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def tell(found: Compared, directory: Path) -> None:
    """Print what was found."""
    for one in found.parity:
        print(
            f"{one.kind:14} cosine {one.mean_cosine:.6f} (lowest {one.min_cosine:.6f}), "
            f"largest error {one.max_error:.2g}"
        )
    if found.effect is not None:
        print(
            f"AUC {_figure(found.effect.reference_auc)} -> {_figure(found.effect.auc)}, opened "
            f"events {found.effect.reference_alarms} -> {found.effect.alarms}"
        )
    print(f"report in {directory / REPORT}", file=sys.stderr)
