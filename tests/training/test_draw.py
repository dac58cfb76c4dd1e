"""Batches: what is drawn, and that a step's batch follows from the seed and the step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.bags import Bag, segments
from training.draw import Contiguous, Deck, Drawer, Segmented
from training.manifest import Row

CROPS, WIDTH = 2, 4


def bag(name: str, label: str, windows: int, *, synthetic: bool = False) -> Bag:
    source = "synthetic" if synthetic else "real"
    row = Row(id=name, label=label, group=name, source=source)
    random = np.random.default_rng(len(name) + windows)
    features = random.normal(size=(windows, CROPS, WIDTH)).astype(np.float32)
    # A window's place in its video, so that a test can tell which one it got.
    features[:, :, 0] = np.arange(windows)[:, None]
    return Bag(row, features, features[:, 0].copy())


@pytest.fixture
def bags() -> list[Bag]:
    lengths = (3, 8, 20, 50)
    return [
        bag(f"{label}-{n}", label, n, synthetic=label == "anomalous" and n == 8)
        for label in ("anomalous", "normal")
        for n in lengths
    ]


@given(count=st.integers(1, 20), size=st.integers(1, 7), key=st.integers(0, 99))
def test_a_deck_gives_every_index_once_before_any_again(count: int, size: int, key: int) -> None:
    deck = Deck(count, (key,))
    drawn = [index for step in range(3 * count) for index in deck.draw(step, size)]
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(steps=st.lists(st.integers(0, 100), min_size=1, max_size=5))
def test_a_deck_answers_any_step_alike_in_any_order(steps: list[int]) -> None:
    deck = Deck(7, (1,))
    assert [deck.draw(s, 3) for s in steps] == [Deck(7, (1,)).draw(s, 3) for s in steps]


def test_a_batch_holds_both_labels_evenly_and_says_what_is_synthetic(bags: list[Bag]) -> None:
    batch = Drawer(bags, 0, Contiguous(bags, 8, 4)).draw(0, 4)
    assert batch.labels.tolist() == [0.0] * 4 + [1.0] * 4
    assert batch.synthetic.sum() == 1
    assert batch.synthetic[:4].sum() == 0


def test_a_step_has_its_batch_whatever_was_drawn_before(bags: list[Bag]) -> None:
    drawer = Drawer(bags, 5, Contiguous(bags, 8, 4))
    later = drawer.draw(7, 2)
    fresh = Drawer(bags, 5, Contiguous(bags, 8, 4)).draw(7, 2)
    assert torch.equal(later.visual, fresh.visual)
    assert torch.equal(later.scored, fresh.scored)


def test_contiguous_windows_stand_in_a_row_behind_their_past(bags: list[Bag]) -> None:
    reader = Contiguous(bags, 8, 4)
    starts = Counter()
    for seed in range(300):
        cut = reader(3, np.random.default_rng(seed))
        places = cut.visual[:, 0, 0]
        assert (np.diff(places) == 1).all()
        first = int(places[cut.scored[0]])
        assert len(cut.visual) == 8 + min(4, first)
        starts[first] += 1
    assert (min(starts), max(starts)) == (0, 50 - 8)


def test_a_short_video_is_read_whole_and_its_scores_are_stretched(bags: list[Bag]) -> None:
    cut = Contiguous(bags, 8, 4)(0, np.random.default_rng(0))
    assert cut.visual[:, 0, 0].tolist() == [0, 1, 2]
    assert cut.scored.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_segments_come_from_the_file_once_it_is_made(bags: list[Bag], tmp_path: Path) -> None:
    file = tmp_path / "segments.npy"
    random = np.random.default_rng(0)
    for reader in (Segmented(bags, 8, file), Segmented(bags, 8, file, progress=pytest.fail)):
        for index, whole in enumerate(bags):
            np.testing.assert_array_equal(reader(index, random).visual, segments(whole.features, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["segments.npy"]


def test_captions_come_along(bags: list[Bag]) -> None:
    batch = Drawer(bags, 0, Contiguous(bags, 8, 4)).draw(1, 2)
    assert batch.text is not None
    assert torch.equal(batch.text[..., 0], batch.visual[:, 0, :, 0])
