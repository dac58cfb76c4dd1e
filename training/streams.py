"""Splice clips into streams, for the head to learn what comes before a window.

A stream is one camera's footage: nothing or minutes of normal clips of one
source, then one clip to judge. Each clip in it is a bag under its own label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.fitting import ClipDraw
from training.pool import Pool, Rows

_CONTEXT_SHARE = 0.5
_CROPPED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Bag:
    """A clip in a stream.

    Attributes:
        first: its first window in the stream.
        end: one past its last.
        clip: index in the pool.
        weight: in the loss, before SSLS.
    """

    first: int
    end: int
    clip: int
    weight: float


@dataclass(frozen=True, slots=True)
class Stream:
    """Contiguous windows of one camera, as far as the clips allow.

    Attributes:
        before: (P,) rows that only make the initial state.
        rows: (T,) rows to score.
        bags: the clips among `rows`.
    """

    before: Rows
    rows: Rows
    bags: tuple[Bag, ...]


class Splicer:
    """Makes streams.

    Args:
        pool: all windows.
        chosen: clips that may be seen.
        mates: normal clips of the same scene as a clip, by name; they go before
            others of its source.
        longest: windows of a stream at most.
    """

    def __init__(
        self,
        pool: Pool,
        chosen: Sequence[int],
        mates: Mapping[str, Sequence[str]],
        longest: int,
    ) -> None:
        self._runs = {clip: pool.runs(clip) for clip in chosen}
        self._longest = longest
        names = {pool.clips[clip].name: clip for clip in chosen}
        normal: dict[str, list[int]] = {}
        for clip in chosen:
            if not pool.clips[clip].anomalous:
                normal.setdefault(pool.clips[clip].source, []).append(clip)
        self._mates = {}
        for clip in chosen:
            same_scene = [names[n] for n in mates.get(pool.clips[clip].name, ()) if n in names]
            self._mates[clip] = same_scene or normal.get(pool.clips[clip].source, [])

    def draw(self, draw: ClipDraw, rng: np.random.Generator) -> Stream:
        """One stream, anomalous at its end in half of the draws."""
        clip = draw.draw_pair(rng)[rng.integers(2)]
        target = self._crop(clip, self._longest, rng)
        room = self._longest - len(target)
        if not room or not self._mates[clip] or rng.random() >= _CONTEXT_SHARE:
            return Stream(target[:0], target, (Bag(0, len(target), clip, 1.0),))
        context = self._context(clip, int(rng.integers(1, room + 1)), rng)
        cropped = int(rng.integers(len(context))) if rng.random() < _CROPPED_SHARE else 0
        before = [rows for _, rows in context[:cropped]]
        return _joined(before, [*context[cropped:], (clip, target)], target)

    def _context(self, clip: int, windows: int, rng: np.random.Generator) -> list[tuple[int, Rows]]:
        """Normal clips that go before `clip`, `windows` windows or a few fewer."""
        context: list[tuple[int, Rows]] = []
        left = windows
        while left > 0:
            mate = int(rng.choice(self._mates[clip]))
            rows = self._crop(mate, left, rng)
            context.append((mate, rows))
            left -= len(rows)
        return context

    def _crop(self, clip: int, windows: int, rng: np.random.Generator) -> Rows:
        """Contiguous windows of one run of a clip, at most `windows`."""
        runs = self._runs[clip]
        run = runs[rng.integers(len(runs))]
        first = int(rng.integers(max(1, len(run) - windows + 1)))
        return run[first : first + windows]


def _joined(before: list[Rows], parts: list[tuple[int, Rows]], target: Rows) -> Stream:
    bags, first = [], 0
    for number, (clip, rows) in enumerate(parts):
        last = number == len(parts) - 1
        # All the footage before counts half as much as the clip to judge.
        weight = 1.0 if last else 0.5 / (len(parts) - 1)
        bags.append(Bag(first, first + len(rows), clip, weight))
        first += len(rows)
    empty = target[:0]
    return Stream(
        np.concatenate([empty, *before]),
        np.concatenate([rows for _, rows in parts]),
        tuple(bags),
    )
