"""Train a head on precomputed features, from a manifest to a checkpoint.

A run may be killed at any moment: the same command goes on from its last
snapshot and ends with the same weights, since every step's chance follows from
the seed and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from server.contract import WINDOW_FRAMES
from server.metrics import frame_scores, roc_auc
from training.bags import Bag
from training.clips import TrainingError
from training.head import Head, HeadState
from training.head_run import HEAD_WEIGHTS, read_tensors, write_description, write_tensors
from training.learner import FIGURES, Learner
from training.logs import Curves
from training.manifest import Manifest, load_manifest
from training.mil_data import (
    Bar,
    MilData,
    Texts,
    drawer,
    load_data,
    normal_mean,
    suspicion_of,
    whole,
)
from training.mil_recipe import MilRecipe

SNAPSHOT = "snapshot.safetensors"

_CHUNK_WINDOWS = 256
_ONE_THREAD_NUMBERS = 4_000_000
"""A step that reads fewer numbers runs faster on one thread: threads would wait for each other.

Measured on two cores: 28 ms a step on one, 94 on two, for 64 videos of 48-dimensional features."""
_CALIBRATION_STEP = 2**31
_SNAPSHOT_EVERY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        manifest: JSON lines, a video each.
        folder: of the run; made if need be.
        texts: files that some recipes need beside.
    """

    manifest: Path
    folder: Path
    texts: Texts = field(default_factory=Texts)


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run tells how far it is.

    Attributes:
        rows: wraps the rows whose files are checked.
        step: called after every step with its number and figures.
    """

    rows: Bar = iter
    step: Callable[[int, dict[str, float]], None] = lambda step, figures: None


@dataclass(frozen=True, slots=True)
class Trained:
    """A run's outcome.

    Attributes:
        head: the checkpoint that was chosen, in evaluation mode.
        auc: what it was chosen by; None where nothing was there to choose on.
        step: steps that it had taken.
    """

    head: Head
    auc: float | None
    step: int


def train_head(places: Places, recipe: MilRecipe, progress: Progress | None = None) -> Trained:
    """Make a head.

    Writes curves, snapshots, and at the end the chosen weights with their description.

    Args:
        places: where it reads and writes.
        recipe: what to make.
        progress: told how far it is.

    Raises:
        TrainingError: data or recipe cannot be used, or the folder holds another run.
    """
    manifest = load_manifest(places.manifest)
    return train_manifest(manifest, places.folder, places.texts, recipe, progress)


def train_manifest(
    manifest: Manifest,
    folder: Path,
    texts: Texts,
    recipe: MilRecipe,
    progress: Progress | None = None,
) -> Trained:
    """Make a head of chosen rows; see `train_head`.

    Args:
        manifest: its rows, and the file that their paths are relative to.
        folder: of the run; made if need be.
        texts: files that some recipes need beside.
        recipe: what to make.
        progress: told how far it is.
    """
    progress = progress or Progress()
    data = load_data(manifest, recipe, texts, progress.rows)
    run = _Run(data, recipe, folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = run.resume()
    saved_seconds = time.monotonic()
    with (
        _threads(_numbers_a_step(data, recipe)),
        Curves(folder, (*FIGURES, "validation_auc"), first) as curves,
    ):
        for step in range(first, recipe.steps):
            figures = run.step(step)
            done = step + 1
            judged = done % recipe.validate_every == 0 or done == recipe.steps
            if judged:
                figures["validation_auc"] = run.validate(done)
            curves.write(step, figures)
            if judged or time.monotonic() - saved_seconds > _SNAPSHOT_EVERY_SECONDS:
                curves.flush()
                run.save(done)
                saved_seconds = time.monotonic()
            progress.step(step, figures)
    return run.finish()


def _numbers_a_step(data: MilData, recipe: MilRecipe) -> int:
    """Of features that a step may read at most."""
    _, crops, width = data.train[0].features.shape
    return int(2 * recipe.each * (recipe.context + recipe.lead) * crops * width)


@contextmanager
def _threads(numbers: int) -> Iterator[None]:
    """As many threads of torch as a step is worth, no more than there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if numbers < _ONE_THREAD_NUMBERS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """A run under way."""

    def __init__(self, data: MilData, recipe: MilRecipe, folder: Path) -> None:
        self._data, self._recipe, self._folder = data, recipe, folder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            size = None if data.bank is None else data.bank.vectors.size
            head = Head(recipe.head(*data.dims, size))
        suspicion = None if data.prompts is None else suspicion_of(data.prompts)
        semantic = head.semantic
        if semantic is not None and data.bank is not None:
            semantic.fill(data.bank.vectors)
            semantic.fit_centre(normal_mean(data.train)[None])
            if recipe.objective_spec.needs_suspicion:
                suspicion = lambda batch: semantic.suspicion(batch.visual.mean(1))  # noqa: E731
        self._learner = Learner(head, recipe.learner, suspicion)
        self._best: dict[str, Tensor] = {}
        self._best_auc, self._best_step = -1.0, 0

    def resume(self) -> int:
        """Take up the folder's snapshot; the step to go on with.

        Raises:
            TrainingError: it is of other data or another recipe.
        """
        path = self._folder / SNAPSHOT
        if not path.exists():
            # The segments of a run that never got to a snapshot may be of other videos.
            for stale in self._folder.glob("segments-*.npy"):
                stale.unlink()
            self._prepare()
            self._calibrate()
            return 0
        tensors, notes = read_tensors(path)
        if notes.get("fingerprint") != self._data.fingerprint:
            raise TrainingError(
                f"{self._folder} holds a run of another manifest or recipe; give another --out "
                "or remove it"
            )
        self._prepare()
        self._learner.restore({k: v for k, v in tensors.items() if not k.startswith("best.")})
        self._best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
        self._best_auc, self._best_step = float(notes["best_auc"]), int(notes["best_step"])
        return int(notes["step"])

    def _prepare(self) -> None:
        recipe, data = self._recipe, self._data
        self._train = drawer(data.train, recipe, self._folder, "train")
        self._held_out = None
        if data.held_out:
            self._held_out = drawer(data.held_out, recipe, self._folder, "held-out")

    def _calibrate(self) -> None:
        """Set frozen norms from a batch; others learn their statistics."""
        head = self._learner.head
        if head.spec.frozen_norms:
            batch = self._train.draw(_CALIBRATION_STEP, self._recipe.each)
            head.calibrate(batch.visual, batch.text)

    def step(self, step: int) -> dict[str, float]:
        """Descend once."""
        each, held_out = self._recipe.each, self._held_out
        ask = None if held_out is None else (lambda: held_out.draw(step, each))
        return self._learner.step(step, self._train.draw(step, each), ask)

    def validate(self, step: int) -> float:
        """Judge the head of now, and keep it if none was better; NaN with nothing to judge on."""
        head = self._learner.head
        auc = judged_auc(head, self._data.judge, self._recipe)
        if auc is None or auc > self._best_auc:
            self._best = {k: v.detach().clone() for k, v in head.state_dict().items()}
            self._best_auc, self._best_step = (-1.0 if auc is None else auc), step
        return math.nan if auc is None else auc

    def save(self, step: int) -> None:
        """Write everything that the next step depends on, whole or not at all."""
        tensors = self._learner.state() | {f"best.{k}": v for k, v in self._best.items()}
        notes = {
            "fingerprint": self._data.fingerprint,
            "step": str(step),
            "best_auc": repr(self._best_auc),
            "best_step": str(self._best_step),
        }
        write_tensors(self._folder / SNAPSHOT, tensors, notes)

    def finish(self) -> Trained:
        """Write the chosen head with its description."""
        head = self._learner.head
        head.load_state_dict(self._best)
        auc = None if self._best_auc < 0 else self._best_auc
        write_tensors(
            self._folder / HEAD_WEIGHTS, self._best, {"fingerprint": self._data.fingerprint}
        )
        content = {
            "name": self._recipe.name,
            "head": asdict(head.spec),
            "recipe": self._recipe.model_dump(),
            "encoder": self._data.encoder,
            "bank": None if self._data.bank is None else self._data.bank.sha256,
            "seed": self._recipe.seed,
            "fingerprint": self._data.fingerprint,
            "code_version": version("gvvad"),
            "chosen": {"step": self._best_step, "auc": auc},
            "threshold": self._threshold(),
            "clips": sorted(
                {bag.row.video_sha256 for bag in self._data.bags if bag.row.video_sha256}
            ),
            "videos": {
                "train": len(self._data.train),
                "held_out": len(self._data.held_out),
                "judge": len(self._data.judge),
            },
        }
        write_description(self._folder, content)
        return Trained(head.eval(), auc, self._best_step)

    def _threshold(self) -> dict[str, object] | None:
        """The score that a share of normal validation windows reach; None without any."""
        if self._recipe.released or not self._data.judge:
            return None
        head, share = self._learner.head.eval(), self._recipe.false_positive_rate
        normal = [bag for bag in self._data.judge if bag.row.label == "normal"]
        scores = torch.cat([window_scores(head, bag) for bag in normal])
        return {
            "value": float(scores.double().quantile(1 - share)),
            "chosen": f"reached by {100 * share:g} % of {len(scores)} windows of {len(normal)} "
            "normal validation videos, which also chose the checkpoint",
        }


def judged_auc(head: Head, bags: list[Bag], recipe: MilRecipe) -> float | None:
    """How well a head tells the videos apart; None without videos of both labels.

    By whole videos: the mean of the top k of every T windows of a video against its
    label. The released choice is by frames of test videos.
    """
    head.eval()
    labels, scores = [], []
    for bag in bags:
        found = window_scores(head, bag)
        if recipe.released:
            assert bag.row.frames is not None
            first_frames = range(0, WINDOW_FRAMES * len(found), WINDOW_FRAMES)
            scores.append(torch.tensor(frame_scores(first_frames, found.tolist(), bag.row.frames)))
            truth = torch.zeros(bag.row.frames, dtype=torch.bool)
            for start, end in bag.row.anomalous or ():
                truth[start:end] = True
            labels.append(truth)
            continue
        count = math.ceil(len(found) * recipe.objective_spec.k / recipe.context)
        scores.append(found.topk(count).values.mean()[None])
        labels.append(torch.tensor([bag.row.label == "anomalous"]))
    if not bags:
        return None
    return roc_auc(torch.cat(labels).numpy(), torch.cat(scores).numpy())


def window_scores(head: Head, bag: Bag) -> Tensor:
    """(n,) Scores of all windows of a video in order, mean over crops."""
    visual, text = whole(bag)
    with torch.no_grad():
        if not head.spec.causal:
            scores: Tensor = head(visual, text).scores[0]
            return scores
        # In parts: the parallel form's cost grows with the square of its length.
        crops = visual[0]
        state = HeadState.zero(head.spec, len(crops), crops)
        texts = None if text is None else text.expand(len(crops), -1, -1)
        parts = []
        for start in range(0, crops.shape[1], _CHUNK_WINDOWS):
            chosen = slice(start, start + _CHUNK_WINDOWS)
            read = None if texts is None else texts[:, chosen]
            logits, state = head.run(crops[:, chosen], state, read)
            parts.append(torch.sigmoid(logits).mean(0))
        return torch.cat(parts)
