"""The probe: what a linear score can tell, and no more."""

from __future__ import annotations

import pytest
import torch

from training.probe import probe_auc
from training.problems import ceiling


def windows(shift: float, seed: int, videos: int = 120) -> torch.Tensor:
    drawn = torch.randn(videos, 32, 8, generator=torch.Generator().manual_seed(seed))
    drawn[..., 3] += shift
    return drawn


def test_alike_windows_cannot_be_told_apart() -> None:
    assert probe_auc(windows(0, 1), windows(0, 2)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("shift", [1.0, 2.0, 4.0])
def test_a_shift_is_told_as_well_as_can_be(shift: float) -> None:
    found = probe_auc(windows(0, 1), windows(shift, 2))
    assert found == pytest.approx(ceiling(shift), abs=0.02)


def test_neither_scale_nor_origin_nor_numbers_matter() -> None:
    plain = probe_auc(windows(0, 1), windows(1, 2, videos=20))
    moved = probe_auc(100 + 50 * windows(0, 1), 100 + 50 * windows(1, 2, videos=20))
    assert moved == pytest.approx(plain, abs=1e-3)
    assert plain == pytest.approx(ceiling(1.0), abs=0.04)


def test_it_is_judged_on_other_videos_than_it_saw() -> None:
    # More numbers than windows to fit: what is seen can be told apart without fail.
    real, made = (torch.randn(4, 4, 64, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    assert probe_auc(real, made) < 0.95
