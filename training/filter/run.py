"""Run the filter: measure, judge, decide, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.bundle import file_sha256, load_bundle
from server.contract import Feature
from training.clips import TrainingError
from training.crew import Crew
from training.encoders import EncoderChoice
from training.filter.criteria import BY_NAME, CRITERIA, Limit, Values
from training.filter.findings import (
    OVERRIDES,
    Findings,
    load_overrides,
    percentiles,
    write_overrides,
)
from training.filter.footage import Sampling
from training.filter.judging import Opinions, RealFootage, Seen, judge, usual_limits
from training.filter.measured import FOLDER, Work, measure_all
from training.filter.pictures import MOST_SHOWN, Shown, chosen, draw_histograms, draw_sheet
from training.filter.report import HISTOGRAMS, REPORT, SHEETS, markdown
from training.filter.verdicts import ByHand, Label, Rule, decide
from training.manifest import MANIFEST as MANIFEST
from training.manifest import Manifest, Row, rebased, write_manifest
from training.scored import by_bundle
from training.text_tower import load_tower

Bar = Callable[[str, int], Callable[[int], None]]
"""Begins a bar with a title and a total; what it returns is told how many more are done."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller decided.

    Attributes:
        shares: part of each label that is kept; None where limits decide.
        criteria: names of those that count; None for all that can be known.
        limits: in place of those that real footage gives.
        overrides: file; None for the one in the output folder, where there is one.
        detector: bundle to ask; None for none.
    """

    shares: dict[Label, float] | None
    criteria: tuple[str, ...] | None = None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    overrides: Path | None = None
    detector: Path | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is.

    Attributes:
        generated: manifest with the generated videos.
        real: manifest with real ones; may be the same.
        out: folder for all that is made.
    """

    generated: Manifest
    real: Manifest
    out: Path


@dataclass(frozen=True, slots=True)
class Looking:
    """How videos are looked at."""

    choice: EncoderChoice
    sampling: Sampling
    crew: Crew


def run(places: Places, wishes: Wishes, looking: Looking, bar: Bar) -> Findings:
    """Judge the generated videos and write manifest, findings, report and pictures.

    Real videos that are marked as test take no part.

    Raises:
        TrainingError: no generated video or too few real ones can be judged, or a wish cannot
            be met.
        BundleError: the encoder's or the detector's bundle cannot be used.
    """
    generated = [row for row in places.generated.rows if row.synthetic]
    real = [row for row in places.real.rows if not row.synthetic and row.split != "test"]
    if not generated:
        raise TrainingError(
            f'{places.generated.path} has no row with "source": "synthetic"; give what generate '
            "made"
        )
    _check_wishes(wishes, looking.choice)
    by_hand = _by_hand(places.out, wishes, generated)
    places.out.mkdir(parents=True, exist_ok=True)
    work = Work(places.out / FOLDER, looking.choice, looking.sampling)
    videos = [*_paths(places.generated, generated), *_paths(places.real, real)]
    measured = measure_all(videos, work, looking.crew, bar("measure", len(videos)))
    made = tuple(seen for seen in measured.seen if seen.row.synthetic)
    if not made:
        first = next(iter(measured.skipped.items()))
        raise TrainingError(f"no generated video can be judged; the first, {first[0]}: {first[1]}")
    reference = RealFootage(tuple(seen for seen in measured.seen if not seen.row.synthetic))
    opinions = Opinions(_texts(made, looking.choice, bar), _peaks(places, made, wishes, bar))
    values = reference.values()
    limits = usual_limits(values) | dict(wishes.limits)
    judged = judge(made, reference, opinions, limits["duplicate"].high or 1.0)
    known = [c.name for c in CRITERIA if any(v.values[c.name] is not None for v in judged)]
    rule = Rule(criteria=wishes.criteria or tuple(known), shares=wishes.shares, limits=limits)
    found = Findings(
        encoder=measured.encoder,
        rule=rule,
        real={name: percentiles(found) for name, found in values.items()},
        videos=tuple(judged),
        verdicts=tuple(decide(judged, rule, by_hand)),
        skipped={
            row.id: measured.skipped[row.id] for row in generated if row.id in measured.skipped
        },
    )
    _write(places, found, values, by_hand)
    return found


def _check_wishes(wishes: Wishes, choice: EncoderChoice) -> None:
    names = wishes.criteria or ()
    for name in names:
        if BY_NAME[name].needs_text and choice.bundle is not None:
            raise TrainingError(
                f"{name} compares videos with texts, but a bundle has no text tower; give --model "
                f"and --pretrained, or leave {name} out"
            )
    if "detector" in names and wishes.detector is None:
        raise TrainingError("the criterion detector needs --detector BUNDLE")


def _by_hand(out: Path, wishes: Wishes, generated: Sequence[Row]) -> ByHand:
    path = wishes.overrides or out / OVERRIDES
    if wishes.overrides is None and not path.is_file():
        return ByHand()
    return load_overrides(path, frozenset(row.id for row in generated))


def _paths(manifest: Manifest, rows: Sequence[Row]) -> list[tuple[Row, Path]]:
    for row in rows:
        if row.video is None:
            raise TrainingError(
                f"{row.id!r} of {manifest.path} has no video to look at; give a manifest of videos"
            )
    return [(row, manifest.file(str(row.video)).absolute()) for row in rows]


def _texts(made: Sequence[Seen], choice: EncoderChoice, bar: Bar) -> dict[str, Feature]:
    rows = [seen.row for seen in made if seen.row.description is not None]
    if choice.model is None or choice.pretrained is None or not rows:
        return {}
    tower = load_tower(choice.model, choice.pretrained)
    tick = bar("texts", len(rows))
    texts = [str(row.description) for row in rows]
    vectors = tower.vectors(texts, ("{}",), tick)
    return {row.id: vector.numpy() for row, vector in zip(rows, vectors, strict=True)}


def _peaks(places: Places, made: Sequence[Seen], wishes: Wishes, bar: Bar) -> dict[str, float]:
    if wishes.detector is None:
        return {}
    bundle = load_bundle(wishes.detector)
    rows = [seen.row for seen in made]
    seen = set(bundle.manifest.training.clips)
    trained = [row.id for row, path in _paths(places.generated, rows) if file_sha256(path) in seen]
    if trained:
        raise TrainingError(
            f"the detector {wishes.detector} was trained on {trained[0]!r} and {len(trained) - 1} "
            "other generated videos, so it agrees with itself; give one that saw real videos alone"
        )
    tick = bar("detector", len(rows))
    scored, _ = by_bundle(bundle, places.generated, rows, lambda: tick(1))
    return {video.row.id: max(video.scores) for video in scored}


def _write(places: Places, found: Findings, real: Mapping[str, Values], by_hand: ByHand) -> None:
    out, generated = places.out, places.generated
    rows = {row.id: row for row in generated.rows}
    shown = {
        verdict.id: Shown(
            verdict,
            generated.file(str(rows[verdict.id].video)),
            rows[verdict.id].frames or 1,
        )
        for verdict in found.verdicts
    }
    for name in SHEETS:
        picked = [shown[verdict.id] for verdict in chosen(name, found.verdicts)]
        draw_sheet(out / f"{name}.png", name, picked)
    draw_histograms(out / HISTOGRAMS, found, real)
    (out / REPORT).write_text(markdown(found, generated.path.name))
    found.save(out)
    write_overrides(out / OVERRIDES, by_hand, chosen("borderline", found.verdicts)[:MOST_SHOWN])
    kept = {verdict.id for verdict in found.verdicts if verdict.kept}
    write_manifest(out / MANIFEST, [_decided(row, kept, places) for row in generated.rows])


def _decided(row: Row, kept: set[str], places: Places) -> Row:
    row = rebased(row, places.generated.path.parent, places.out)
    return row.model_copy(update={"kept": row.id in kept}) if row.synthetic else row
