"""What a pair must pass before it is kept: each gate says what it refuses and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from training.clips import TrainingError
from training.describe.inflect import Vocabulary
from training.describe.near import NearDuplicates
from training.describe.pairs import Pair
from training.describe.taxonomy import Taxonomy

MIN_WORDS = 8


class Gate(StrEnum):
    """The gates, in the order in which a pair meets them."""

    SCHEMA = "schema"
    BANNED = "banned content"
    LENGTH = "length"
    NAMED = "normal names an anomaly"
    NEAR = "near-duplicate"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A pair that did not pass.

    Attributes:
        gate: the first that it failed at.
        reason: half a sentence.
    """

    gate: Gate
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how alike descriptions may be.

    Attributes:
        max_tokens: of either description; the generator's text encoder reads no more.
        max_similarity: Jaccard index over neighbouring word pairs, to any other of its label.
    """

    max_tokens: int = 226
    max_similarity: float = 0.7

    def __post_init__(self) -> None:
        if not 16 <= self.max_tokens <= 4096:
            raise TrainingError(f"--max-tokens ({self.max_tokens}) must be 16 to 4096")
        if not 0.1 <= self.max_similarity < 1:
            raise TrainingError(
                f"--max-similarity ({self.max_similarity:g}) must be at least 0.1 and under 1"
            )


class Gates:
    """All gates but the schema's, which is where an answer is read."""

    def __init__(
        self, taxonomy: Taxonomy, limits: Limits, count_tokens: Callable[[str], int]
    ) -> None:
        self._limits, self._count_tokens = limits, count_tokens
        self._banned = Vocabulary(taxonomy.banned)
        words = (word for one in taxonomy.classes.values() for word in one.words)
        self._anomalous = Vocabulary(words)
        self._accepted = NearDuplicates(limits.max_similarity)

    def alone(self, pair: Pair) -> Rejection | None:
        """Judge a pair by itself; it may be called from any thread."""
        for text in (pair.anomalous, pair.normal):
            if (word := self._banned.found_in(text)) is not None:
                return Rejection(Gate.BANNED, f"{word!r} is banned")
            if (tokens := self._count_tokens(text)) > self._limits.max_tokens:
                return Rejection(
                    Gate.LENGTH, f"{tokens} tokens, {self._limits.max_tokens} are read"
                )
            if (words := len(text.split())) < MIN_WORDS:
                return Rejection(Gate.LENGTH, f"{words} words, {MIN_WORDS} are the least")
        if (word := self._anomalous.found_in(pair.normal)) is not None:
            return Rejection(Gate.NAMED, f"the normal description says {word!r}")
        return None

    def beside_others(self, pair: Pair) -> Rejection | None:
        """Judge a pair by the ones kept before it, and keep it if it passes."""
        found = self._accepted.nearest(pair)
        if found is not None:
            limit = self._limits.max_similarity
            return Rejection(Gate.NEAR, f"similarity {found:.2f} to another, at most {limit:g}")
        self._accepted.add(pair)
        return None
