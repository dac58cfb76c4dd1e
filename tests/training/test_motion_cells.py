"""The grid of motion: its norm, where motion stands in it, and which way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.motion_cells import CHANNELS, DIRECTIONS, CellEncoder, CellSpec, MotionLevel

SPEC = CellSpec(48, 96, cell=16, stride=16)
ROWS, COLUMNS = 3, 6


def moving(right: float, down: float, top: int = 16, left: int = 32) -> Tensor:
    """(1, 16, 48, 96, 3) A blurred spot that moves so many pixels a frame, on grey."""
    y, x = np.mgrid[:48, :96]
    images = []
    for index in range(16):
        apart = (y - top - 8 - down * index) ** 2 + (x - left - 8 - right * index) ** 2
        images.append(80 + 150 * np.exp(-apart / 18))
    grey = np.stack(images).astype(np.uint8)
    return torch.from_numpy(np.repeat(grey[None, ..., None], 3, -1))


def cells_of(images: Tensor) -> Tensor:
    """(ROWS, COLUMNS, CHANNELS)."""
    with torch.no_grad():
        return CellEncoder(SPEC)(images).view(ROWS, COLUMNS, CHANNELS)


@given(seed=st.integers(0, 1000), contrast=st.integers(1, 255))
@settings(max_examples=15, deadline=None)
def test_every_cell_is_a_unit_vector_whatever_it_sees(seed: int, contrast: int) -> None:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, contrast + 1, (1, 16, 48, 96, 3), generator=random)
    found = cells_of(images.to(torch.uint8))
    torch.testing.assert_close(found.norm(dim=2), torch.ones(ROWS, COLUMNS))


def test_a_still_window_holds_the_constant_alone() -> None:
    found = cells_of(moving(0, 0))
    assert torch.equal(found[..., -1], torch.ones(ROWS, COLUMNS))
    assert float(found[..., :-1].abs().max()) == 0
    assert float(MotionLevel(SPEC)(found.reshape(1, -1))[0]) == 0


def test_motion_stands_in_the_cells_where_it_is() -> None:
    found = cells_of(moving(0.5, 0))[..., :-1].norm(dim=2)
    assert divmod(int(found.argmax()), COLUMNS)[0] == 1
    assert float(found[:, 0].max()) < 0.01 < float(found[1, 2:4].max())


@pytest.mark.parametrize(
    ("right", "down", "direction"), [(0.5, 0, 0), (0, 0.5, 2), (-0.5, 0, 4), (0, -0.5, 6)]
)
def test_the_strongest_channel_says_which_way(right: float, down: float, direction: int) -> None:
    found = cells_of(moving(right, down)).flatten(0, 1)
    assert int(found[:, :DIRECTIONS].sum(0).argmax()) == direction


def test_what_moves_faster_scores_higher() -> None:
    with torch.no_grad():
        scores = [
            float(MotionLevel(SPEC)(CellEncoder(SPEC)(moving(speed, 0)))[0])
            for speed in (0, 0.3, 0.6, 1.2)
        ]
    assert scores == sorted(set(scores))
    assert scores[-1] < 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cell": 0}, r"cell \(0\) must be a multiple of 4"),
        ({"width": 50}, r"width \(50\) must be a multiple of 4"),
        ({"cell": 64}, r"cell \(64\) must fit into the image \(48x96\)"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CellSpec(**({"height": 48, "width": 96, "cell": 16, "stride": 16} | changes))
