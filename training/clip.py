"""open_clip's models, by name or by files; the package is imported where one is needed alone."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from pickle import PickleError
from typing import Any

from server.bundle import file_sha256
from training.clips import TrainingError
from training.torchvision_ops import make_torchvision_importable


@dataclass(frozen=True, slots=True)
class Clip:
    """A model with its weights.

    Attributes:
        name: of the model.
        weights: its pretrained tag, or the sha256 of its weights' file.
        quick_gelu: whether its activation was set to the one that its tag was trained with.
        model: in evaluation mode.
        tokenizer: texts to the model's tokens.
    """

    name: str
    weights: str
    quick_gelu: bool
    model: Any
    tokenizer: Any


def load_clip(model: str, pretrained: str) -> Clip:
    """Build a model of open_clip.

    Args:
        model: open_clip's name, or the path of a model's JSON.
        pretrained: open_clip's tag, or the path of a weights file.

    Raises:
        TrainingError: no such model or weights, or they cannot be had here.
    """
    open_clip = open_clip_module()
    name = _model_name(open_clip, model)
    file = Path(pretrained)
    if not file.is_file() and pretrained not in open_clip.list_pretrained_tags_by_model(name):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "no tag"
        raise TrainingError(
            f"--pretrained {pretrained!r} is neither a file nor a tag of {name} ({known})"
        )
    weights = pretrained
    if file.is_file():
        weights = file_sha256(file)
    try:
        quick = _was_trained_with_quick_gelu(open_clip, name, pretrained)
        made = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=quick).eval()
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError, KeyError, PickleError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{name} cannot be loaded with {pretrained!r} ({reason})") from None
    return Clip(name, weights, quick, made, tokenizer)


def _model_name(open_clip: Any, model: str) -> str:
    path = Path(model)
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise TrainingError(f"--model {model} cannot be read as JSON ({error})") from None
        open_clip.add_model_config(path)
        model = path.stem
    if model not in open_clip.list_models():
        near = difflib.get_close_matches(model, open_clip.list_models())
        offered = f"did you mean {', '.join(near)}?" if near else "see open_clip.list_models()"
        raise TrainingError(f"{model[:200]!r} is no model of open_clip; {offered}")
    return model


def _was_trained_with_quick_gelu(open_clip: Any, name: str, tag: str) -> bool:
    """OpenAI's weights were, under the names of models that have the exact one.

    open_clip only warns, and the features are wrong.
    """
    known = open_clip.get_pretrained_cfg(name, tag)
    return bool(known.get("quick_gelu", False))


def open_clip_module() -> Any:
    """The package."""
    make_torchvision_importable()
    import open_clip

    return open_clip
