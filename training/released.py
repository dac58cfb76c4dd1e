"""Checkpoints of the released code: their tensors under our names.

The names are those of RTFM's `model.py`, which TEVAD, LAP and GV-VAD keep:
`Aggregate` and `Aggregate_text` for the temporal networks, `fc1` to `fc3` for the score
network, `fc0` where modalities are added.
"""

from __future__ import annotations

from pathlib import Path
from pickle import PickleError

import torch
from torch import Tensor

from training.clips import TrainingError
from training.head import Head, HeadSpec

_LAYERS = {
    "conv_1.0": "dilated.0",
    "conv_1.2": "dilated_norm.0",
    "conv_2.0": "dilated.1",
    "conv_2.2": "dilated_norm.1",
    "conv_3.0": "dilated.2",
    "conv_3.2": "dilated_norm.2",
    "conv_4.0": "squeeze",
    "conv_5.0": "fuse",
    "conv_5.2": "fuse_norm",
    "non_local.g": "g",
    "non_local.theta": "theta",
    "non_local.phi": "phi",
    "non_local.W.0": "expand",
    "non_local.W.1": "expand_norm",
}
_NETWORKS = {"Aggregate": "visual", "Aggregate_text": "text"}
_SCORES = {"fc0": "project.0", "fc1": "score.0", "fc2": "score.3", "fc3": "score.6"}
_PARALLEL = "module."

NAMES = {
    **{
        f"{theirs}.{layer}": f"{ours}.{name}"
        for theirs, ours in _NETWORKS.items()
        for layer, name in _LAYERS.items()
    },
    **_SCORES,
}
"""Their layers by ours; each holds a weight, and where it applies a bias and statistics."""


def load_released(path: Path, spec: HeadSpec) -> Head:
    """A head with the weights of a released checkpoint, in evaluation mode.

    Args:
        path: what `torch.save` wrote: a state_dict, or a dict that holds one under "state_dict".
        spec: a head of the papers' form, `rtfm(D)`, `tevad(...)` or `lap(...)`.

    Raises:
        TrainingError: no such file, or weights of another head.
    """
    try:
        # Tensors and containers alone: a checkpoint from elsewhere must not run code.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, PickleError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path} cannot be read as a checkpoint ({reason})") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise TrainingError(f"{path} must hold a state_dict, tensors by name")
    head = Head(spec)
    head.load_state_dict(renamed(content, head, path))
    return head.eval()


def renamed(released: dict[str, Tensor], head: Head, path: Path) -> dict[str, Tensor]:
    """A released state_dict under our names.

    A text network that the head does not have is left out: the released code builds
    one whether it is used or not.

    Raises:
        TrainingError: a tensor is missing, has another shape, or is of no known layer.
    """
    expected = head.state_dict()
    found: dict[str, Tensor] = {}
    for key, tensor in released.items():
        layer, _, part = key.removeprefix(_PARALLEL).rpartition(".")
        if layer not in NAMES:
            raise TrainingError(f"{path}: {key!r} is of no layer that RTFM, TEVAD or LAP have")
        name = f"{NAMES[layer]}.{part}"
        if name not in expected and layer.startswith("Aggregate_text."):
            continue
        if name not in expected or tensor.shape != expected[name].shape:
            wanted = tuple(expected[name].shape) if name in expected else "none such"
            raise TrainingError(
                f"{path}: {key!r} is {tuple(tensor.shape)}, the head expects {wanted}; give the "
                "features', captions' and hidden widths that it was trained with"
            )
        found[name] = tensor
    if missing := sorted(expected.keys() - found.keys()):
        layers = {ours: theirs for theirs, ours in NAMES.items()}
        layer, _, part = missing[0].rpartition(".")
        raise TrainingError(f"{path} lacks '{layers[layer]}.{part}'; give the head it is of")
    return found
