"""gvvad-export verify against a reference: parity and its effect, as a report in the bundle."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from export.engines import EVERY_ENGINE, Lacking, nothing_runs, running
from export.parity import (
    BATCH,
    REAL,
    Effect,
    Encode,
    Parity,
    check,
    effect,
    hard_windows,
    parity,
    real_windows,
    scored,
)
from server.bundle import Bundle, BundleError, Precision, load_bundle
from server.contract import Image
from server.engine.choice import Engine
from server.engine.flags import EngineFlags
from server.engine.onnxruntime import EngineOptions, OnnxDetector
from training.clips import TrainingError
from training.encoders import EncoderChoice
from training.manifest import Manifest, open_videos
from training.scored import VideoScores

REPORT, FIGURES = "verify.md", "verify.json"

_REAL_WINDOWS = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bundle beside its reference, as one engine runs it.

    Attributes:
        engine: its name.
        device: where it ran the encoder.
        parity: by kind of windows.
        effect: on clips; None where there are none, or the reference is no bundle.
    """

    engine: str
    device: str
    parity: tuple[Parity, ...]
    effect: Effect | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A bundle beside its reference.

    Attributes:
        bundle_id: sha256 of its manifest.
        precision: of its encoder.
        reference: what it was compared with.
        engines: that ran it.
        lacking: engines that cannot run it here.
    """

    bundle_id: str
    precision: str
    reference: str
    engines: tuple[Outcome, ...]
    lacking: tuple[Lacking, ...]


@dataclass(frozen=True, slots=True)
class _Task:
    """What every engine is put through."""

    bundle: Bundle
    windows: dict[str, Image]
    reference: Encode
    clips: Manifest | None
    scores: dict[str, VideoScores] | None

    def outcome(self, engine: Engine) -> Outcome:
        told = f"{engine.name} on {engine.device}"
        total = sum(len(images) for images in self.windows.values())
        with tqdm(total=total, desc=f"features, {told}", unit="window", disable=None) as bar:
            found = parity(engine.encode, self.reference, self.windows, bar.update)
        return Outcome(engine.name, engine.device, tuple(found), self._effect(engine, told))

    def _effect(self, engine: Engine, told: str) -> Effect | None:
        if self.clips is None or self.scores is None:
            return None
        ours = _scored(self.bundle, self.clips, told, engine)
        return effect(self.bundle.manifest.threshold.value, self.scores, ours)


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


def run_parity(
    options: argparse.Namespace, engines: Sequence[EngineFlags] = EVERY_ENGINE
) -> Compared:
    """Compare, write the report, refuse what is too far off.

    Raises:
        TrainingError, BundleError: the reference cannot be had, or the bundle is too far off;
            the report is there then as well.
        EngineError: no engine can run it here.
    """
    bundle = load_bundle(options.directory)
    clips = None if options.backtest is None else open_videos(options.backtest)
    windows = hard_windows(bundle)
    if clips is not None:
        paths = [clips.file(str(row.video)) for row in clips.rows if row.video is not None]
        windows[REAL] = real_windows(paths, bundle, _REAL_WINDOWS)
    name, reference = _reference(options, bundle)
    scores = None
    if clips is not None and options.reference is not None:
        scores = _scored(load_bundle(options.reference), clips, "the reference")
    outcomes, lacking = _by_engine(_Task(bundle, windows, reference, clips, scores), engines)
    precision = bundle.manifest.encoder.graph.precision
    compared = Compared(bundle.bundle_id, precision, name, tuple(outcomes), tuple(lacking))
    _write(options.directory, compared)
    for outcome in outcomes:
        _check(precision, outcome)
    return compared


def _by_engine(task: _Task, engines: Sequence[EngineFlags]) -> tuple[list[Outcome], list[Lacking]]:
    outcomes: list[Outcome] = []
    lacking: list[Lacking] = []
    for flags in engines:
        with running(task.bundle, flags, BATCH) as found:
            if isinstance(found, Lacking):
                lacking.append(found)
            else:
                outcomes.append(task.outcome(found))
    if not outcomes:
        raise nothing_runs(task.bundle, lacking)
    return outcomes, lacking


def _check(precision: Precision, outcome: Outcome) -> None:
    try:
        check(precision, outcome.parity)
    except BundleError as error:
        raise BundleError(f"run by {outcome.engine} on {outcome.device}: {error}") from None


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


def _scored(
    bundle: Bundle, clips: Manifest, told: str, engine: Engine | None = None
) -> dict[str, VideoScores]:
    with tqdm(total=len(clips.rows), desc=f"clips, {told}", unit="clip", disable=None) as bar:
        return scored(bundle, clips, bar.update, engine)


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
        f"Bundle `{found.bundle_id[:12]}`, {found.precision}; reference: {found.reference}. "
        "Errors are the largest difference of a number of a feature.",
    ]
    for one in found.engines:
        parts += [f"## {one.engine} on {one.device}", _parity_table(one.parity)]
        parts += [] if one.effect is None else [_effect_table(one.effect)]
    if found.lacking:
        parts += ["## Not run", "\n".join(f"- {one}" for one in found.lacking)]
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
    for outcome in found.engines:
        print(f"{outcome.engine} on {outcome.device}")
        _tell_outcome(outcome)
    for lacking in found.lacking:
        print(f"not run: {lacking}")
    print(f"report in {directory / REPORT}", file=sys.stderr)


def _tell_outcome(found: Outcome) -> None:
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
