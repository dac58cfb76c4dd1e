"""diffusers, and weights from its hub; the packages are imported where they are needed alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from training.clips import TrainingError
from training.generate.backend import Backend
from training.generate.weights import MODEL_INDEX, Weights, check_class, find_folder, local_weights
from training.torchvision_ops import make_torchvision_importable


def diffusers_module() -> Any:
    """The package, told to draw no bars of its own.

    Raises:
        TrainingError: it or what it needs is not installed.
    """
    make_torchvision_importable()
    try:
        # Without it diffusers loads slowly and offloads nothing.
        import accelerate  # type: ignore[import-untyped]  # noqa: F401
        import diffusers
        import transformers
    except ImportError as error:
        raise _missing(error.name or "a package") from None
    for package in (diffusers, transformers):
        package.utils.logging.disable_progress_bar()
        package.utils.logging.set_verbosity_error()
    return diffusers


def diffusers_version() -> str:
    """Of the package, without the seconds that its import takes.

    Raises:
        TrainingError: it is not installed.
    """
    try:
        return metadata.version("diffusers")
    except metadata.PackageNotFoundError:
        raise _missing("diffusers") from None


def _missing(package: str) -> TrainingError:
    return TrainingError(f"{package} is not installed; `pip install 'gvvad[synthetic]'`")


def find_weights(
    name: str, backend: Backend, check: Callable[[Mapping[str, int]], object]
) -> Weights:
    """Weights of a folder, or of a hub id, which is downloaded if it was not yet.

    Args:
        name: folder or hub id.
        backend: whose they must be.
        check: asked before a download, with the parameters of each part; refuses what is too
            large.

    Raises:
        TrainingError: they cannot be had, or are others.
    """
    folder = find_folder(name)
    if folder is None:
        if not _is_cached(name):
            check(backend.parameters)
        folder = _fetched(name, backend)
    return local_weights(name, folder, backend)


def cut_descriptions(folder: Path, texts: Mapping[str, str], most_tokens: int) -> list[str]:
    """Names of the texts that are longer than a pipeline reads; its tokenizer counts.

    Where it has none of its own, none is known to be.
    """
    from transformers import AutoTokenizer

    if not texts or not (folder / "tokenizer").is_dir():
        return []
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    tokens = tokenizer(list(texts.values()))["input_ids"]
    return [name for name, found in zip(texts, tokens, strict=True) if len(found) > most_tokens]


def _is_cached(name: str) -> bool:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        raise _missing("huggingface_hub") from None

    return isinstance(try_to_load_from_cache(name, MODEL_INDEX), str)


def _fetched(name: str, backend: Backend) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        # The small index first: weights of another class are not worth a download.
        index = json.loads(Path(hf_hub_download(name, MODEL_INDEX)).read_bytes())
        check_class(name, index.get("_class_name"), backend)
        return Path(diffusers_module().DiffusionPipeline.download(name))
    except (OSError, EntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise TrainingError(
            f"weights {name} are no folder here and cannot be had from the hub ({reason}); "
            "download them where there is a network and give their folder by --weights"
        ) from None
