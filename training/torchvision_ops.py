"""Let torchvision import beside a CPU build of torch, for the packages that import it themselves.

open_clip and the text encoders of transformers do. Nothing of ours uses it.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch

_kept: list[torch.library.Library] = []


def make_torchvision_importable() -> None:
    """Import torchvision; where its compiled operators lack, declare the two that it names.

    A torchvision that imports is left alone, and so is a lack of it.
    """
    try:
        import torchvision  # type: ignore[import-untyped]
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        _declare_operators(sys.modules)
        import torchvision  # noqa: F401


def _declare_operators(modules: dict[str, ModuleType]) -> None:
    for name in [name for name in modules if name.partition(".")[0] == "torchvision"]:
        del modules[name]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(operator + signature)  # type: ignore[no-untyped-call]
    _kept.append(library)  # what it declares goes when it does
