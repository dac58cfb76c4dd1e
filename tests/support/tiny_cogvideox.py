"""Text-to-video pipelines of diffusers with weights by chance, small enough for a test."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
import yaml

from training.torchvision_ops import make_torchvision_importable

TOKENS = 16
_WIDTH = 32
LETTERS = "abcdefghijklmnopqrstuvwxyz.,"
"""That the tokenizer knows, a token each, after SPECIAL others."""

SPECIAL = 4
_BACKEND: dict[str, Any] = {
    "name": "tiny",
    "pipeline": "CogVideoXPipeline",
    "dtype": "fp32",
    "frames": 9,
    "fps": 8,
    "height": 64,
    "width": 96,
    "steps": 2,
    "guidance": 6,
    "max_tokens": TOKENS,
    "frame_step": 4,
    "size_step": 16,
    "working": {"denoise_gb": 0.1, "decode_gb": 0.1, "tiled_decode_gb": 0.1},
}


def tiny_backend(folder: Path, **changes: object) -> Path:
    """A backend's YAML for the weights of `write_tiny_cogvideox(folder)`; `changes` replace values.

    17 frames (`frames=17`) make a window of 16; sizes are multiples of 16.
    """
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(_BACKEND | {"weights": str(folder / "weights")} | changes))
    return path


def write_tiny_cogvideox(folder: Path) -> Path:
    """A CogVideoX in `folder / "weights"`, always the same one."""
    make_torchvision_importable()
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = 4
        vae = AutoencoderKLCogVideoX(
            block_out_channels=(8,) * blocks,
            down_block_types=("CogVideoXDownBlock3D",) * blocks,
            up_block_types=("CogVideoXUpBlock3D",) * blocks,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
        )
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=_WIDTH,
            num_layers=1,
            sample_width=12,
            sample_height=8,
            sample_frames=9,
            max_text_seq_length=TOKENS,
        )
        tokenizer, text_encoder = _texts()
    pipe = CogVideoXPipeline(tokenizer, text_encoder, vae, transformer, CogVideoXDDIMScheduler())
    return _saved(pipe, folder / "weights")


def write_tiny_other(folder: Path) -> Path:
    """An LTX-Video in `folder / "weights"`: another family, with another call."""
    make_torchvision_importable()
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            decoder_inject_noise=(False,) * 5,
            upsample_residual=(False,) * 4,
            upsample_factor=(1,) * 4,
            patch_size=1,
            patch_size_t=1,
        )
        transformer = LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=_WIDTH,
            num_layers=1,
            caption_channels=_WIDTH,
        )
        tokenizer, text_encoder = _texts()
    scheduler = FlowMatchEulerDiscreteScheduler()
    return _saved(
        LTXPipeline(scheduler, vae, text_encoder, tokenizer, transformer), folder / "weights"
    )


def _texts() -> tuple[Any, Any]:
    """A tokenizer of letters and a text encoder."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *LETTERS]
    tokenizer = T5Tokenizer([(piece, -1.0) for piece in pieces], extra_ids=0)
    config = T5Config(vocab_size=64, d_model=_WIDTH, d_kv=8, d_ff=_WIDTH, num_layers=2, num_heads=4)
    return tokenizer, T5EncoderModel(config)


def _saved(pipe: Any, folder: Path) -> Path:
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        pipe.save_pretrained(folder)
    return folder
