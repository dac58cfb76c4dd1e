"""Batches of bags: who comes when, and which windows of each.

Everything follows from the seed and the step alone, so that a run that goes on
from a snapshot meets the batches that it would have met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.bags import Bag, Floats, segments, stretched


@dataclass(frozen=True, slots=True)
class Batch:
    """B bags, as the head takes them.

    Attributes:
        visual: (B, N, L, D); where videos are shorter than others, zeros at the end.
        text: (B, L, E) or None.
        scored: (B, T) which of the L windows the loss sees.
        labels: (B,) float, 1 = anomalous.
        synthetic: (B,) bool.
    """

    visual: Tensor
    text: Tensor | None
    scored: Tensor
    labels: Tensor
    synthetic: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Deck:
    """Indices in an order that is shuffled anew every time they have all been drawn."""

    def __init__(self, count: int, key: tuple[int, ...]) -> None:
        self._count = count
        self._key = key
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def draw(self, step: int, size: int) -> list[int]:
        """The `size` indices of that step; any step may be asked for."""
        return [self._at(step * size + offset) for offset in range(size)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        if epoch != self._epoch:
            self._order = np.random.default_rng((*self._key, epoch)).permutation(self._count)
            self._epoch = epoch
        return int(self._order[place])


class Drawer:
    """Draws normal and anomalous bags in equal parts.

    Of bags whose first crop is the whole picture one crop is drawn a turn: the others
    stand in for a camera that looks from elsewhere, and are never averaged.

    Args:
        bags: to draw from; of both labels.
        seed: of every choice.
        read: a bag's windows for a step.
    """

    def __init__(self, bags: Sequence[Bag], seed: int, read: Reader) -> None:
        self._bags = bags
        self._seed = seed
        self._read = read
        self._by_label = [
            [index for index, bag in enumerate(bags) if bag.row.label == label]
            for label in ("normal", "anomalous")
        ]
        self._decks = [
            Deck(len(members), (seed, label)) for label, members in enumerate(self._by_label)
        ]

    def draw(self, step: int, each: int) -> Batch:
        """The batch of a step: `each` normal bags, then as many anomalous ones."""
        chosen = [
            members[index]
            for members, deck in zip(self._by_label, self._decks, strict=True)
            for index in deck.draw(step, each)
        ]
        random = np.random.default_rng((self._seed, 2, step))
        cuts = [self._cut(index, random) for index in chosen]
        return joined(cuts, [self._bags[index] for index in chosen])

    def _cut(self, index: int, random: np.random.Generator) -> Cut:
        cut = self._read(index, random)
        if not self._bags[index].row.whole_first:
            return cut
        crop = int(random.integers(cut.visual.shape[1]))
        return replace(cut, visual=cut.visual[:, crop : crop + 1])


@dataclass(frozen=True, slots=True)
class Cut:
    """A bag's windows in one batch.

    Attributes:
        visual: (L, N, D).
        text: (L, E) or None.
        scored: (T,) indices into L.
    """

    visual: Floats
    text: Floats | None
    scored: npt.NDArray[np.int64]


Reader = Callable[[int, np.random.Generator], Cut]


def joined(cuts: Sequence[Cut], bags: Sequence[Bag]) -> Batch:
    """One batch of cuts; shorter ones are filled with zeros at their end."""
    longest = max(len(cut.visual) for cut in cuts)
    _, crops, width = cuts[0].visual.shape
    visual = np.zeros((len(cuts), crops, longest, width), np.float32)
    text = None
    if cuts[0].text is not None:
        text = np.zeros((len(cuts), longest, cuts[0].text.shape[1]), np.float32)
    for place, cut in enumerate(cuts):
        visual[place, :, : len(cut.visual)] = cut.visual.swapaxes(0, 1)
        if text is not None and cut.text is not None:
            text[place, : len(cut.text)] = cut.text
    return Batch(
        torch.from_numpy(visual),
        None if text is None else torch.from_numpy(text),
        torch.from_numpy(np.stack([cut.scored for cut in cuts])),
        torch.tensor([float(bag.row.label == "anomalous") for bag in bags]),
        torch.tensor([bag.row.synthetic for bag in bags]),
    )


class Contiguous:
    """Reads T windows in a row from a random start, as a stream delivers them.

    The windows before them come along, as many as `lead`, so that the scored
    windows have a past as in service. A shorter video is read whole.

    Args:
        bags: to read.
        windows: T.
        lead: windows before the scored ones, at most.
    """

    def __init__(self, bags: Sequence[Bag], windows: int, lead: int) -> None:
        self._bags = bags
        self._windows = windows
        self._lead = lead

    def __call__(self, index: int, random: np.random.Generator) -> Cut:
        """That bag's windows."""
        bag = self._bags[index]
        if bag.windows <= self._windows:
            return _cut(bag, 0, bag.windows, stretched(bag.windows, self._windows))
        start = int(random.integers(bag.windows - self._windows + 1))
        first = max(0, start - self._lead)
        scored = np.arange(start - first, start - first + self._windows)
        return _cut(bag, first, start + self._windows, scored)


def _cut(bag: Bag, first: int, end: int, scored: npt.NDArray[np.int64]) -> Cut:
    text = None if bag.captions is None else np.asarray(bag.captions[first:end])
    return Cut(np.asarray(bag.features[first:end]), text, scored)


class Segmented:
    """Reads videos as T segments each, from a file that holds them all.

    Whole videos are many times larger than their segments: they are read once.

    Args:
        bags: to read.
        windows: T.
        file: where the segments lie, or will.
        progress: wraps the bags while the file is made.
    """

    def __init__(
        self,
        bags: Sequence[Bag],
        windows: int,
        file: Path,
        progress: Callable[[Sequence[Bag]], Iterable[Bag]] = iter,
    ) -> None:
        self._bags = bags
        self._windows = windows
        shape = (len(bags), windows, *bags[0].features.shape[1:])
        if not file.exists():
            scratch = file.with_name(f".{file.name}")
            made = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.float32, shape=shape)
            for place, bag in enumerate(progress(bags)):
                made[place] = segments(bag.features, windows)
            made.flush()
            scratch.replace(file)
        self._segments: Floats = np.load(file, mmap_mode="r")
        self._texts = [
            None if bag.captions is None else segments(bag.captions, windows) for bag in bags
        ]

    def __call__(self, index: int, random: np.random.Generator) -> Cut:
        """That bag's segments; nothing is random about them."""
        return Cut(self._segments[index], self._texts[index], np.arange(self._windows))
