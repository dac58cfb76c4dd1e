"""Pairs of descriptions, written, judged and kept in order.

Pairs are settled one after another: a pair's words depend on those before it,
never on how many follow or on how many are written at the same time. Writing
runs ahead, so that an endpoint is asked for several at once.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.pool import AsyncResult, ThreadPool

from training.clips import TrainingError
from training.describe.gates import Gate, Gates, Rejection
from training.describe.pairs import Pair, UnfitAnswerError, Writer, rows_of
from training.describe.sampling import Sample, samples
from training.describe.taxonomy import Taxonomy
from training.manifest import Row

MOST_ROWS = 100_000

# How many pairs are written ahead, for each that is written at the same time.
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted.

    Attributes:
        count: of descriptions, two a pair.
        seed: of every choice.
    """

    count: int
    seed: int

    def __post_init__(self) -> None:
        if not 2 <= self.count <= MOST_ROWS or self.count % 2:
            raise TrainingError(f"--count ({self.count}) must be an even number, 2 to {MOST_ROWS}")
        if not 0 <= self.seed < 2**63:
            raise TrainingError(f"--seed ({self.seed}) must be 0 or more, and under 2^63")


@dataclass(frozen=True, slots=True)
class Described:
    """What came of an order.

    Attributes:
        rows: pair by pair, the anomalous one first.
        rejected: pairs that each gate refused.
    """

    rows: tuple[Row, ...]
    rejected: Mapping[Gate, int]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A pair that passes by itself, and the ones that did not before it."""

    pair: Pair
    refused: tuple[Rejection, ...]


class _Desk:
    """Writes drafts and judges them.

    Attributes:
        stopping: once set, nothing more is written.
    """

    def __init__(self, writer: Writer, gates: Gates) -> None:
        self._writer, self._gates = writer, gates
        self.stopping = threading.Event()

    def draft(self, sample: Sample, refused: tuple[Rejection, ...] = ()) -> _Draft:
        """The next draft of a pair that passes by itself, after those that were refused.

        Raises:
            TrainingError: all attempts are used up.
        """
        for attempt in range(len(refused), self._writer.attempts):
            if self.stopping.is_set():
                raise TrainingError("another pair could not be written")
            try:
                pair = self._writer.write(sample, attempt)
                rejection = self._gates.alone(pair)
            except UnfitAnswerError as error:
                rejection = Rejection(Gate.SCHEMA, str(error))
            if rejection is None:
                return _Draft(pair, refused)
            refused = (*refused, rejection)
        counts = Counter(rejection.gate for rejection in refused)
        told = ", ".join(f"{gate} {counts[gate]}" for gate in Gate if counts[gate])
        raise TrainingError(
            f"pair {sample.index + 1} ({sample.class_name}, {sample.location}) was refused "
            f"{len(refused)} times ({told}; the last: {refused[-1].reason}); try another --seed, "
            "fewer descriptions or wider limits"
        )

    def settle(self, sample: Sample, draft: _Draft) -> _Draft:
        """The first draft from this one on that passes beside the pairs kept before."""
        while (rejection := self._gates.beside_others(draft.pair)) is not None:
            draft = self.draft(sample, (*draft.refused, rejection))
        return draft


def describe(
    taxonomy: Taxonomy, order: Order, writer: Writer, gates: Gates, on_pair: Callable[[], None]
) -> Described:
    """Write, judge and keep pairs.

    Args:
        taxonomy: where the elements come from.
        order: how many, and the seed.
        writer: of the words.
        gates: with no pair kept in them yet.
        on_pair: called as each is kept.

    Raises:
        TrainingError: a pair was refused too often, or the writer cannot go on.
    """
    desk = _Desk(writer, gates)
    wanted = islice(samples(taxonomy, order.seed), order.count // 2)
    rows: list[Row] = []
    rejected: Counter[Gate] = Counter(dict.fromkeys(Gate, 0))
    with _drafts(desk, wanted, writer.concurrency) as drafts:
        for sample, draft in drafts:
            kept = desk.settle(sample, draft)
            rejected.update(rejection.gate for rejection in kept.refused)
            rows += rows_of(sample, kept.pair)
            on_pair()
    return Described(tuple(rows), rejected)


@contextmanager
def _drafts(
    desk: _Desk, wanted: Iterable[Sample], concurrency: int
) -> Iterator[Iterator[tuple[Sample, _Draft]]]:
    """Drafts in order, written ahead by as many threads as are allowed."""
    if concurrency == 1:
        yield ((sample, desk.draft(sample)) for sample in wanted)
        return
    # Its threads do not keep the process alive: whoever interrupts a silent endpoint need not
    # wait for it.
    pool = ThreadPool(concurrency)
    try:
        yield _written_ahead(desk, wanted, pool, _AHEAD * concurrency)
    except TrainingError:
        # What is asked already is paid for: its answers are waited for and kept.
        desk.stopping.set()
        pool.close()
        pool.join()
        raise
    finally:
        pool.terminate()


def _written_ahead(
    desk: _Desk, wanted: Iterable[Sample], pool: ThreadPool, ahead: int
) -> Iterator[tuple[Sample, _Draft]]:
    waiting: deque[tuple[Sample, AsyncResult[_Draft]]] = deque()
    for sample in wanted:
        waiting.append((sample, pool.apply_async(desk.draft, (sample,))))
        if len(waiting) >= ahead:
            first, coming = waiting.popleft()
            yield first, coming.get()
    for last, coming in waiting:
        yield last, coming.get()
