"""What a run on features works with: bags of every role, and the prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.bags import Bag, Contents, Floats, feed_digest, open_bags
from training.bank import Bank, load_bank
from training.clips import TrainingError
from training.draw import Batch, Contiguous, Drawer, Segmented
from training.manifest import Manifest, Row, split_rows
from training.mil_recipe import MilRecipe

SEGMENTS = "segments-{role}.npy"

Bar = Callable[[Sequence[Row]], Iterable[Row]]


@dataclass(frozen=True, slots=True)
class MilData:
    """Bags by role; a group stands in one of them alone.

    Attributes:
        train: what is learned from.
        held_out: real ones that a meta lambda asks; empty without one.
        judge: what the checkpoint is chosen on.
        prompts: (P, E) sentence embeddings of anomalies, for MPL and PAL, or None.
        bank: for recipes that read one, or None.
        encoder: what made the features.
        fingerprint: hash of data and recipe.
    """

    train: list[Bag]
    held_out: list[Bag]
    judge: list[Bag]
    prompts: Tensor | None
    bank: Bank | None
    encoder: str | None
    fingerprint: str

    @property
    def bags(self) -> list[Bag]:
        """Of every role."""
        return [*self.train, *self.held_out, *self.judge]

    @property
    def dims(self) -> tuple[int, int | None]:
        """D and E."""
        first = self.train[0]
        return first.features.shape[2], None if first.captions is None else first.captions.shape[1]


@dataclass(frozen=True, slots=True)
class Texts:
    """Files of texts' embeddings.

    Attributes:
        prompts: `.npy` of (P, E) sentence embeddings, in the captions' space.
        bank: what `gvvad-train bank` made.
    """

    prompts: Path | None = None
    bank: Path | None = None


def load_data(manifest: Manifest, recipe: MilRecipe, texts: Texts, progress: Bar = iter) -> MilData:
    """Split a manifest and open every file that the run will read.

    Args:
        manifest: which videos there are.
        recipe: what is to be made of them.
        texts: what the recipe may need beside the features.
        progress: wraps the rows while their files are checked.

    Raises:
        TrainingError: rows or files that cannot be used; it names them.
    """
    embeddings, bank = _prompts(recipe, texts.prompts), _bank(recipe, texts.bank)
    training, validation = split_rows(manifest.rows, recipe.validation_share, recipe.seed)
    held_out: list[Row] = []
    if recipe.scaling.kind == "meta":
        unmarked = [row.model_copy(update={"split": None}) for row in training]
        training, held_out = split_rows(unmarked, recipe.held_out_share, recipe.seed + 1)
    judge = _test_rows(manifest) if recipe.released else validation
    contents = Contents(captions=recipe.text == "caption")
    rows = [*training, *held_out, *judge]
    opened = open_bags(manifest, rows, contents, progress)
    _check_prompts(embeddings, opened[0])
    _check_bank(bank, opened[0])
    ends = (len(training), len(training) + len(held_out))
    return MilData(
        opened[: ends[0]],
        opened[ends[0] : ends[1]],
        opened[ends[1] :],
        embeddings,
        bank,
        rows[0].encoder,
        _fingerprint(opened, recipe, embeddings, bank),
    )


def _test_rows(manifest: Manifest) -> list[Row]:
    rows = [row for row in manifest.rows if row.split == "test"]
    unknown = [row.id for row in rows if row.frames is None or row.anomalous is None]
    if not rows or unknown:
        what = f"{unknown[0]!r} has no `frames` and `anomalous`" if unknown else "there is none"
        raise TrainingError(f"released: chooses on test videos of known truth, but {what}")
    return rows


def _prompts(recipe: MilRecipe, path: Path | None) -> Tensor | None:
    if not recipe.objective_spec.needs_suspicion or recipe.text == "clip_bank":
        return None
    if path is None:
        raise TrainingError(
            "the recipe's mpl and pal compare windows with prompts: give --prompts FILE.npy, "
            "(P, E) sentence embeddings, or set both to 0"
        )
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(f"prompts {path} cannot be read as .npy ({error})") from None
    if found.ndim != 2 or found.dtype.kind != "f" or not len(found) or not np.isfinite(found).all():
        raise TrainingError(f"prompts {path} must be (P, E) finite numbers, got {found.shape}")
    return torch.from_numpy(found.astype(np.float32))


def _check_prompts(prompts: Tensor | None, bag: Bag) -> None:
    if prompts is None:
        return
    width = bag.features.shape[2] if bag.captions is None else bag.captions.shape[1]
    if prompts.shape[1] != width:
        raise TrainingError(
            f"prompts have {prompts.shape[1]} numbers and what they are compared with {width}; "
            "both must come from one text encoder"
        )


def _bank(recipe: MilRecipe, path: Path | None) -> Bank | None:
    if recipe.text != "clip_bank":
        return None
    if path is None:
        raise TrainingError(
            "the recipe describes windows by a bank: give --bank FILE, which gvvad-train bank makes"
        )
    return load_bank(path)


def _check_bank(bank: Bank | None, bag: Bag) -> None:
    width = bag.features.shape[2]
    if bank is not None and bank.vectors.sentences.shape[1] != width:
        raise TrainingError(
            f"the bank's vectors have {bank.vectors.sentences.shape[1]} numbers and the features "
            f"{width}; both must come from one model"
        )


def _fingerprint(
    bags: list[Bag], recipe: MilRecipe, prompts: Tensor | None, bank: Bank | None
) -> str:
    """Of all that decides a run: which videos, of which features, under which recipe."""
    content = recipe.model_dump_json(exclude={"name", "detector"})
    digest = hashlib.sha256(content.encode())
    feed_digest(digest, bags)
    if prompts is not None:
        digest.update(prompts.numpy().tobytes())
    if bank is not None:
        digest.update(bank.sha256.encode())
    return digest.hexdigest()


def suspicion_of(prompts: Tensor) -> Callable[[Batch], Tensor]:
    """Largest cosine of a window's sentence, or of its feature, to any prompt: (B, L).

    Source: LAP, equation 6. Features of CLIP's visual tower are compared where there
    are no sentences; crops are averaged.
    """
    unit = functional.normalize(prompts, dim=1)

    def suspicion(batch: Batch) -> Tensor:
        seen = batch.visual.mean(1) if batch.text is None else batch.text
        return (functional.normalize(seen, dim=2) @ unit.T).amax(2)

    return suspicion


def normal_mean(bags: list[Bag]) -> Tensor:
    """(D,) Mean feature of the windows of normal videos, crops averaged."""
    normal = [bag for bag in bags if bag.row.label == "normal"]
    sums = sum(np.asarray(bag.features, np.float64).mean(1).sum(0) for bag in normal)
    return torch.from_numpy(sums / sum(bag.windows for bag in normal)).float()


def drawer(bags: list[Bag], recipe: MilRecipe, folder: Path, role: str) -> Drawer:
    """Draws batches of a role's bags, as the recipe reads windows."""
    seed = recipe.seed * 2 + (role != "train")
    if recipe.windows == "contiguous":
        return Drawer(bags, seed, Contiguous(bags, recipe.context, recipe.lead))
    file = folder / SEGMENTS.format(role=role)
    return Drawer(bags, seed, Segmented(bags, recipe.context, file))


def whole(bag: Bag) -> tuple[Tensor, Tensor | None]:
    """All windows of a video as they are judged, (1, N, n, D) and (1, n, E)."""
    views = bag.features[:, :1] if bag.row.whole_first else bag.features
    features: Floats = np.array(views.swapaxes(0, 1), order="C")
    text = None if bag.captions is None else torch.from_numpy(np.array(bag.captions))[None]
    return torch.from_numpy(features)[None], text
