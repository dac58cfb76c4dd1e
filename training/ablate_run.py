"""Train and judge the arms of an ablation, over seeds and folds, and pool their figures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field

from server.metrics import pooled, roc_auc
from training.ablation import Ablation, Arm, arm_rows, says_kept
from training.bags import Contents, open_bags
from training.cells import Shelf, Tick
from training.clips import TrainingError
from training.logs import CURVES, read_curves
from training.manifest import Manifest, Row, load_manifest
from training.mil import Progress, train_manifest
from training.mil_data import Texts
from training.mil_recipe import MilRecipe
from training.recipe import Part
from training.scored import VideoScores, by_head, check_truth


class Scored(Part):
    """A test video's windows: frames and scores."""

    id: str
    first_frames: tuple[int, ...]
    end_frames: tuple[int, ...]
    scores: tuple[float, ...]


class HeadResult(Part):
    """What training a head came to.

    Attributes:
        step: of the checkpoint that was chosen.
        validation_auc: that it was chosen by; None without validation videos.
        last_lambda: at the last step.
        videos: as it scores them.
    """

    step: int
    validation_auc: float | None
    last_lambda: float
    videos: tuple[Scored, ...] = Field(min_length=1)


@dataclass(frozen=True)
class HeadCell:
    """A head to train on a manifest's rows, and to judge on those that are marked as test.

    Attributes:
        manifest: with the rows of an arm alone.
        recipe: with the cell's seed.
        texts: files that it may need beside.
        contents: hash of the files' contents.
    """

    manifest: Manifest
    recipe: MilRecipe
    texts: Texts
    contents: str

    @cached_property
    def key(self) -> str:
        """Hash of recipe, rows and files."""
        digest = hashlib.sha256(self.recipe.model_dump_json(exclude={"name"}).encode())
        for row in self.manifest.rows:
            digest.update(row.to_line().encode())
        digest.update(self.contents.encode())
        return digest.hexdigest()[:24]

    @property
    def steps(self) -> int:
        """Of Adam."""
        return self.recipe.steps

    def run(self, folder: Path, tick: Tick) -> HeadResult:
        """Train, going on from a snapshot, and score the test videos."""
        last = -1

        def count(step: int, figures: dict[str, float]) -> None:
            nonlocal last
            tick(step - last)
            last = step

        rows = self.manifest.rows
        found = train_manifest(self.manifest, folder, self.texts, self.recipe, Progress(step=count))
        last_lambda = read_curves(folder)["lambda"][-1]
        (folder / CURVES).replace(folder.parent / CURVES)
        encoder = next(row.encoder for row in rows if row.split != "test")
        tests = [row for row in rows if row.split == "test"]
        contents = Contents(encoder, self.recipe.text == "caption")
        bags = open_bags(self.manifest, tests, contents)
        videos = tuple(_at_rest(video) for video in by_head(found.head, self.manifest, bags))
        return HeadResult(
            step=found.step, validation_auc=found.auc, last_lambda=last_lambda, videos=videos
        )


def _at_rest(video: VideoScores) -> Scored:
    return Scored(
        id=video.row.id,
        first_frames=video.first_frames,
        end_frames=video.end_frames,
        scores=video.scores,
    )


@dataclass(frozen=True)
class Study:
    """What arms are compared on.

    Attributes:
        manifests: one, or one a fold; the test videos of all are pooled.
        texts: files that some recipes need beside.
        seeds: of every arm.
    """

    manifests: tuple[Manifest, ...]
    texts: Texts = field(default_factory=Texts)
    seeds: tuple[int, ...] = tuple(range(5))

    @property
    def filtered(self) -> bool:
        """Whether a filter has judged the synthetic videos of every fold."""
        return all(says_kept(manifest) for manifest in self.manifests)

    @property
    def made(self) -> bool:
        """Whether every fold has synthetic videos."""
        return all(any(row.synthetic for row in m.rows) for m in self.manifests)

    @property
    def tests(self) -> list[Row]:
        """Test videos of all folds."""
        return [row for manifest in self.manifests for row in _tests(manifest)]

    @cached_property
    def contents(self) -> tuple[str, ...]:
        """Hash of the contents of each manifest's files, and of the texts'."""
        texts = hashlib.sha256()
        for path in (self.texts.prompts, self.texts.bank):
            texts.update(b"-" if path is None else _read(path))
        return tuple(
            hashlib.sha256(texts.digest() + _stamps(manifest)).hexdigest()
            for manifest in self.manifests
        )

    def cells(self, arm: Arm) -> list[HeadCell]:
        """Of an arm, seed by seed, and of each seed fold by fold."""
        return [
            HeadCell(
                Manifest(manifest.path, arm_rows(manifest, arm, seed)),
                arm.recipe.model_copy(update={"seed": seed}),
                self.texts,
                contents,
            )
            for seed in self.seeds
            for manifest, contents in zip(self.manifests, self.contents, strict=True)
        ]


def open_study(paths: Sequence[Path], texts: Texts, seeds: int) -> Study:
    """Read manifests to compare arms on.

    Raises:
        TrainingError: one cannot be read or has no test video, a test video stands in two
            or is of unknown truth, or fewer than two seeds.
    """
    check_seeds(seeds)
    study = Study(tuple(load_manifest(path) for path in paths), texts, tuple(range(seeds)))
    seen: dict[str, Path] = {}
    for manifest in study.manifests:
        rows = _tests(manifest)
        if not rows:
            raise TrainingError(
                f"no real video of {manifest.path} is marked as test; mark those to judge on "
                'with "split": "test"'
            )
        for row in rows:
            if row.id in seen:
                raise TrainingError(
                    f"test video {row.id!r} stands in {seen[row.id]} and in {manifest.path}; "
                    "folds must test on different videos, since their frames are pooled"
                )
            seen[row.id] = manifest.path
    check_truth(study.tests)
    return study


def check_seeds(seeds: int) -> None:
    """Refuse a single run.

    Raises:
        TrainingError: fewer than two, or more than a thousand.
    """
    if not 2 <= seeds <= 1000:
        raise TrainingError(
            f"--seeds ({seeds}) must be 2 to 1000: a single run has no spread to judge a "
            "difference by"
        )


def _tests(manifest: Manifest) -> list[Row]:
    return [row for row in manifest.rows if row.split == "test" and not row.synthetic]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror})") from None


def _stamps(manifest: Manifest) -> bytes:
    """First and last windows of every file: features that are made anew differ there."""
    digest = hashlib.sha256()
    for row in manifest.rows:
        for name in (row.features, row.captions, row.spans):
            if name is None:
                continue
            try:
                array = np.load(manifest.file(name), mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise TrainingError(
                    f"{manifest.file(name)} of {row.id!r} cannot be read as .npy ({error})"
                ) from None
            digest.update(f"{array.shape}".encode() + array[:1].tobytes() + array[-1:].tobytes())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """What an arm came to.

    Attributes:
        arm: it.
        aucs: frame ROC AUC in %, seed by seed.
        real: real videos that trained, mean over seeds and folds; those that a meta lambda
            asks among them.
        synthetic: synthetic ones.
        last_lambdas: at the end of training, by seed and fold.
    """

    arm: Arm
    aucs: tuple[float, ...]
    real: float
    synthetic: float
    last_lambdas: tuple[float, ...]


def figures(ablation: Ablation, study: Study, shelf: Shelf[HeadResult]) -> list[ArmFigures]:
    """Figures of every arm, from results at rest; those of one arm are in memory at a time."""
    return [_arm_figures(arm, study, shelf) for arm in ablation.arms]


def _arm_figures(arm: Arm, study: Study, shelf: Shelf[HeadResult]) -> ArmFigures:
    cells = study.cells(arm)
    results = [shelf.result(cell) for cell in cells]
    folds = len(study.manifests)
    trained = [row for cell in cells for row in cell.manifest.rows if row.split == "train"]
    made = sum(row.synthetic for row in trained)
    return ArmFigures(
        arm,
        tuple(
            _pooled_auc(study, results[first : first + folds])
            for first in range(0, len(results), folds)
        ),
        (len(trained) - made) / len(cells),
        made / len(cells),
        tuple(result.last_lambda for result in results),
    )


def _pooled_auc(study: Study, results: Sequence[HeadResult]) -> float:
    rows = {row.id: row for row in study.tests}
    videos = [
        VideoScores(rows[found.id], found.first_frames, found.end_frames, found.scores)
        for result in results
        for found in result.videos
    ]
    auc = roc_auc(*pooled([(video.labels(), video.back_filled()) for video in videos]))
    assert auc is not None
    return 100 * auc
