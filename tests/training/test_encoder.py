"""The encoder: motion measured in the graph, unit embeddings, scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.encoder import Encoder, EncoderSpec, motion, tail

SPEC = EncoderSpec(members=2, width=4, embedding=8, dropout=0.0)
LEFT_EDGE = 20


def a_walk(step_pixels: int) -> Tensor:
    """(1, 16, 48, 64, 3) uint8: a soft bright stripe that moves right."""
    columns = torch.arange(64).float()
    images = torch.zeros(1, 16, 48, 64, 3)
    for index in range(16):
        centre = LEFT_EDGE + step_pixels * index
        stripe = 200 * torch.exp(-((columns - centre) ** 2) / 50)
        images[0, index] = stripe[None, :, None]
    return images.to(torch.uint8)


def some_windows(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 16, 48, 64, 3), generator=generator, dtype=torch.uint8)


def test_features_have_the_declared_width_and_norm() -> None:
    encoder = Encoder(SPEC).eval()
    features = encoder(some_windows(3))
    assert features.shape == (3, SPEC.feature_dim) == (3, 16)
    torch.testing.assert_close(features.norm(dim=1), torch.full((3,), encoder.feature_scale))


def test_a_still_window_has_no_motion() -> None:
    still = some_windows(1)[:, :1].expand(-1, 16, -1, -1, -1)
    seen = motion(still)
    assert not seen[:, :, :6].any()
    assert float(tail(still)) == 0
    assert torch.isfinite(Encoder(SPEC).eval()(still)).all()


@pytest.mark.parametrize("step", [1, -1])
def test_flow_points_where_the_scene_moves(step: int) -> None:
    maps = motion(a_walk(step))
    moving = maps[0, :, 6] > 0.01
    right, down = maps[0, :, 4][moving], maps[0, :, 5][moving]
    # Half-size pixels: one pixel a frame is a half; the ridge and the blur pull it to zero.
    assert 0.2 < float(right.median()) * step < 0.7
    assert float(down.abs().median()) < 0.05


def test_faster_motion_has_more_energy() -> None:
    slow, fast = motion(a_walk(1)), motion(a_walk(2))
    assert fast[:, :, 0].mean() > slow[:, :, 0].mean()
    assert float(tail(a_walk(2))) > float(tail(a_walk(1)))


def test_the_tail_is_the_value_that_its_share_of_pixels_exceeds() -> None:
    images = some_windows(1)
    grey = images.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64) / 255
    thin = (grey[:, 1:] - grey[:, :-1]).abs()[:, :, ::2, ::2].flatten()
    percentile = float(thin.sort(descending=True).values[round(0.005 * len(thin)) - 1])
    assert float(tail(images)) == pytest.approx(percentile, abs=1e-5)


def test_a_window_alone_is_encoded_as_in_a_batch() -> None:
    encoder, windows = Encoder(SPEC).eval(), some_windows(4)
    torch.testing.assert_close(encoder(windows)[2:3], encoder(windows[2:3]), rtol=0, atol=1e-5)
