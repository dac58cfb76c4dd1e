"""Windows in the pool, augmentation, who is drawn, and splicing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.contract import WindowSpec
from server.preprocess import PreprocessSpec
from tests.support.footage import make_footage
from training.clips import Clip, TrainingError, find_clips
from training.fit_encoder import WindowDraw
from training.fitting import ClipDraw, Shares
from training.pool import Pool, augment, build_pool
from training.render import render
from training.streams import Splicer

SMALL = PreprocessSpec(24, 32, "squash", "area", "bt601", "declared")
EVEN = Shares(same_source=0.0, other_normals=0.0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("pool")
    data = make_footage(folder / "data", 3)
    extraction = render(find_clips(data), data, folder / "out", SMALL)
    return build_pool(extraction, WindowSpec(16, 10.0), lambda clips: clips)


def test_a_clip_of_two_seconds_has_its_window_and_four_late_starts(pool: Pool) -> None:
    runs = pool.runs(0)
    assert [len(run) for run in runs] == [1, 1, 1, 1, 1]
    assert [int(pool.first_frame[run[0]]) for run in runs] == [0, 1, 2, 3, 4]


def test_labels_follow_the_truth(pool: Pool) -> None:
    for row in range(len(pool.clip)):
        assert pool.anomalous[row] == ("wild" in pool.clips[pool.clip[row]].name)


def test_augmentation_keeps_shapes_and_repeats_with_its_seed(pool: Pool) -> None:
    seen = pool.maps_of(np.arange(6))
    once, twice = (augment(seen, np.random.default_rng(5), 0.5) for _ in range(2))
    assert torch.equal(once, twice)
    assert once.shape == seen.shape
    assert not torch.equal(once, seen)
    assert torch.equal(seen, pool.maps_of(np.arange(6)))


def test_windows_of_one_camera_are_changed_alike(pool: Pool) -> None:
    same = pool.maps_of(np.zeros(4, np.int64))
    alike = augment(same, np.random.default_rng(5), 0.5, np.array([0, 1, 1, 0]))
    assert torch.equal(alike[0], alike[3])
    assert torch.equal(alike[1], alike[2])
    assert not torch.allclose(alike[0], alike[1])
    apart = augment(same, np.random.default_rng(5), 0.5)
    assert not torch.allclose(apart[0], apart[3])


def test_windows_know_their_camera(pool: Pool) -> None:
    sources = [pool.clips[clip].source for clip in pool.clip]
    assert len(set(zip(sources, pool.cameras, strict=True))) == len(set(sources))
    assert set(pool.cameras) == set(range(len(set(sources))))


def test_contrast_scales_energies_by_its_spread(pool: Pool) -> None:
    seen = pool.maps_of(np.zeros(400, np.int64))
    level = torch.log(augment(seen, np.random.default_rng(5), 0.8)[:, :, 0].mean((1, 2, 3)))
    still = torch.log(augment(seen, np.random.default_rng(5), 0.0)[:, :, 0].mean((1, 2, 3)))
    assert float((level - still).std()) == pytest.approx(0.8, abs=0.1)


def test_only_the_chosen_clips_are_drawn(pool: Pool) -> None:
    chosen = [i for i, clip in enumerate(pool.clips) if clip.source != "camera1"]
    draw, rng = ClipDraw(pool.clips, chosen, Shares(0.5, 0.5)), np.random.default_rng(0)
    pairs = [draw.draw_pair(rng) for _ in range(200)]
    assert {clip for pair in pairs for clip in pair} == set(chosen)
    assert all(pool.clips[a].anomalous and not pool.clips[n].anomalous for a, n in pairs)


def test_pairs_of_one_source_are_of_one_source(pool: Pool) -> None:
    draw = ClipDraw(pool.clips, range(len(pool.clips)), Shares(1.0, 0.5))
    rng = np.random.default_rng(0)
    for _ in range(50):
        anomalous, normal = draw.draw_pair(rng)
        assert pool.clips[anomalous].source == pool.clips[normal].source


def test_other_footage_is_drawn_evenly_by_source(pool: Pool) -> None:
    truth = pool.clips[0].truth
    others = [Clip(f"o/{i}", "o", "short" if i == 0 else "long", False, truth) for i in range(9)]
    clips = [*pool.clips, *others]
    draw, rng = ClipDraw(clips, range(len(clips)), Shares(0.0, 0.5)), np.random.default_rng(0)
    drawn = [clips[draw.draw_normal(rng)].source for _ in range(2000)]
    assert 400 < drawn.count("short") < 600
    assert 400 < drawn.count("long") < 600


@pytest.mark.parametrize("kind", ["calm", "wild"])
def test_one_label_only_is_refused(pool: Pool, kind: str) -> None:
    chosen = [i for i, clip in enumerate(pool.clips) if kind in clip.name]
    with pytest.raises(TrainingError, match="training needs both labels"):
        ClipDraw(pool.clips, chosen, EVEN)


def test_a_batch_is_half_anomalous(pool: Pool) -> None:
    draw = ClipDraw(pool.clips, range(len(pool.clips)), EVEN)
    rows = WindowDraw(pool).batch(draw, 8, np.random.default_rng(0))
    assert pool.anomalous[rows].tolist() == [True] * 4 + [False] * 4


@given(seed=st.integers(0, 10_000), longest=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_streams_are_one_camera_normal_before_the_clip_to_judge(
    pool: Pool, seed: int, longest: int
) -> None:
    clips = range(len(pool.clips))
    splicer = Splicer(pool, clips, {"scenes/wild0.mp4": ("scenes/calm0.mp4",)}, longest)
    stream = splicer.draw(ClipDraw(pool.clips, clips, EVEN), np.random.default_rng(seed))
    rows = np.concatenate([stream.before, stream.rows])
    assert 1 <= len(rows) <= longest
    assert len({pool.clips[clip].source for clip in pool.clip[rows]}) == 1
    *context, target = stream.bags
    assert target.weight == 1
    assert not pool.anomalous[stream.before].any()
    assert not any(pool.clips[bag.clip].anomalous for bag in context)
    assert sum(bag.weight for bag in context) == pytest.approx(0.5 if context else 0)
    bounds = [(bag.first, bag.end) for bag in stream.bags]
    assert [first for first, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == len(stream.rows)
    for bag in stream.bags:
        assert set(pool.clip[stream.rows[bag.first : bag.end]]) == {bag.clip}
