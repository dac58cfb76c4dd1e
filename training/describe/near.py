"""Descriptions that say nearly the same as one before.

Likeness is the Jaccard index of two texts' sets of neighbouring word pairs. MinHash finds
the few texts worth comparing among thousands, then the index itself decides, so
that no text is refused by an estimate.

Source: Broder 1997, "On the resemblance and containment of documents".
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from training.clips import TrainingError
from training.describe.pairs import Pair

_WORD = re.compile(r"[^\W_]+")
_PERMUTATIONS = 128
_SEED = 1
# A missed duplicate costs more than a comparison too many.
_WEIGHTS = (0.2, 0.8)


def shingles(text: str) -> frozenset[str]:
    """Neighbouring pairs of words, whatever their case and punctuation.

    >>> sorted(shingles("A man, a plan."))
    ['a man', 'a plan', 'man a']
    """
    words = [word.lower() for word in _WORD.findall(text)]
    return frozenset(f"{one} {two}" for one, two in pairwise(words)) or frozenset(words)


class NearDuplicates:
    """The accepted pairs, and whether another one is too near to one of them."""

    def __init__(self, max_similarity: float) -> None:
        self._max_similarity = max_similarity
        self._halves = (_Texts(max_similarity), _Texts(max_similarity))

    def nearest(self, pair: Pair) -> float | None:
        """The similarity to an accepted text of the same label that is over the limit, if any.

        A text equal in all words is always over.
        """
        for half, text in zip(self._halves, (pair.anomalous, pair.normal), strict=True):
            found = half.nearest(text)
            if found is not None and found > self._max_similarity:
                return found
        return None

    def add(self, pair: Pair) -> None:
        """Count a pair among the accepted ones."""
        for half, text in zip(self._halves, (pair.anomalous, pair.normal), strict=True):
            half.add(text)


class _Texts:
    """Texts of one label."""

    def __init__(self, threshold: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]
        except ImportError:
            raise TrainingError(
                "datasketch, which finds near-duplicates, is not installed; "
                "`pip install 'gvvad[synthetic]'`"
            ) from None
        self._empty = MinHash(num_perm=_PERMUTATIONS, seed=_SEED)
        self._index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=_WEIGHTS)
        self._shingles: list[frozenset[str]] = []
        self._sketched: tuple[str, Any] = ("", None)

    def _sketch(self, text: str) -> Any:
        # Asked about first and added then: the same text twice in a row.
        if self._sketched[0] != text or self._sketched[1] is None:
            sketch = self._empty.copy()
            sketch.update_batch([shingle.encode() for shingle in sorted(shingles(text))])
            self._sketched = (text, sketch)
        return self._sketched[1]

    def nearest(self, text: str) -> float | None:
        mine = shingles(text)
        likeness = [
            len(mine & self._shingles[index]) / len(mine | self._shingles[index])
            for index in self._index.query(self._sketch(text))
        ]
        return max(likeness, default=None)

    def add(self, text: str) -> None:
        self._index.insert(len(self._shingles), self._sketch(text))
        self._shingles.append(shingles(text))
