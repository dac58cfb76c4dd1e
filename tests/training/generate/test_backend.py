"""Backends: files that say how a pipeline is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_cogvideox import tiny_backend
from training.clips import TrainingError
from training.generate.backend import BUILT_IN, changed, load_backend
from training.generate.generator import call_arguments


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_backend_is_one_that_diffusers_has_and_can_call(name: str) -> None:
    backend = load_backend(name)
    arguments = call_arguments(backend)
    assert backend.name == name
    assert arguments["num_inference_steps"] == 50
    assert arguments["max_sequence_length"] == 226
    assert set(backend.parameters) == {"text_encoder", "transformer", "vae"}


def test_cogvideox_stands_as_its_authors_advise() -> None:
    small, large = load_backend("cogvideox-2b"), load_backend("cogvideox-5b")
    for backend in (small, large):
        assert (backend.width, backend.height, backend.frames, backend.fps) == (720, 480, 49, 8)
        assert backend.guidance == 6
    assert (small.dtype, large.dtype) == ("fp16", "bf16")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames": 16}, r"frames \(16\) must be one more than a multiple of 4, as 13 or 17"),
        ({"frames": 2}, r"frames \(2\) must be one more than a multiple of 4, as 1 or 5"),
        ({"height": 60}, r"height \(60\) must be a multiple of 16, as 48 or 64"),
        ({"width": 6}, r"width \(6\) must be a multiple of 16, as 16$"),
        ({"size_step": 3}, "size_step: Input should be"),
        ({"frame_rate": 3}, "frame_rate: Extra inputs"),
        ({"arguments": {"eta": [1]}}, "arguments.eta"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=said):
        load_backend(str(tiny_backend(tmp_path, **changes)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, r"backend tiny: --steps \(0\): Input should be greater"),
        ({"guidance": float("nan")}, r"--guidance \(nan\): "),
        ({"height": 63}, r"backend tiny: height \(63\) must be a multiple of 16"),
    ],
)
def test_a_flag_that_does_not_fit_is_named(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=said):
        changed(load_backend(str(tiny_backend(tmp_path))), changes)


def test_a_name_that_is_no_backend_tells_those_that_are() -> None:
    with pytest.raises(TrainingError, match="neither a file nor one of cogvideox-2b, cogvideox-5b"):
        load_backend("sora")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pipeline": "SoraPipeline"}, "has no pipeline SoraPipeline"),
        ({"pipeline": "AutoencoderKLWan"}, "has no pipeline AutoencoderKLWan"),
        ({"pipeline": "StableDiffusionPipeline"}, "StableDiffusionPipeline takes no num_frames"),
        ({"pipeline": "CogVideoXImageToVideoPipeline"}, "wants image; give a pipeline from text"),
        ({"arguments": {"warp": 9}}, "CogVideoXPipeline takes no warp; leave that setting out"),
    ],
)
def test_what_the_pipeline_cannot_do_is_refused_by_name(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=said):
        call_arguments(load_backend(str(tiny_backend(tmp_path, **changes))))
