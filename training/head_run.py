"""A finished run on features, at rest: the head's weights and what is known of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.bank import Bank
from training.clips import TrainingError
from training.head import Head, HeadSpec
from training.semantic import BankSize

HEAD_WEIGHTS = "head.safetensors"
HEAD_FILE = "head.json"


@dataclass(frozen=True, slots=True)
class HeadRun:
    """What a run left.

    Attributes:
        head: in evaluation mode.
        name: of the recipe.
        encoder: what made the features; None where the manifest said nothing.
        bank: sha256 of the bank that it reads, or None.
        fingerprint: hash of data and recipe.
        clips: sha256 of every training video, sorted, as far as the manifest had them.
        code_version: version of this project that trained.
        seed: every random choice followed from it.
        auc: on the validation videos that chose the checkpoint; None without any.
        threshold: default open threshold; None without validation videos.
        threshold_rule: how it was chosen.
        recipe: as it was.
    """

    head: Head
    name: str
    encoder: str | None
    bank: str | None
    fingerprint: str
    clips: tuple[str, ...]
    code_version: str
    seed: int
    auc: float | None
    threshold: float | None
    threshold_rule: str
    recipe: dict[str, Any]


def load_run(folder: Path) -> HeadRun:
    """Read what a run left.

    Raises:
        TrainingError: the folder holds no finished run, or weights of another head.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        raise TrainingError(f"{folder} holds no {HEAD_FILE}; give the folder of a finished run")
    try:
        content = json.loads(path.read_bytes())
        spec = content["head"]
        size = None if spec["bank"] is None else BankSize(**spec["bank"])
        head = Head(HeadSpec(**spec | {"hidden": tuple(spec["hidden"]), "bank": size}))
        threshold = content["threshold"] or {"value": None, "chosen": ""}
        run = HeadRun(
            head,
            content["name"],
            content["encoder"],
            content["bank"],
            content["fingerprint"],
            tuple(content["clips"]),
            content["code_version"],
            content["seed"],
            content["chosen"]["auc"],
            threshold["value"],
            threshold["chosen"],
            content["recipe"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); train again") from None
    tensors, notes = read_tensors(folder / HEAD_WEIGHTS)
    if notes.get("fingerprint") != run.fingerprint:
        raise TrainingError(f"{folder / HEAD_WEIGHTS} is of another run than {HEAD_FILE} beside it")
    try:
        head.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise TrainingError(f"{folder / HEAD_WEIGHTS} is of another head ({reason})") from None
    head.eval()
    return run


def load_head(folder: Path, bank: Bank | None = None) -> Head:
    """Read a run's head.

    Args:
        folder: of the run.
        bank: whose sentences shall explain the scores; it must be the run's.

    Raises:
        TrainingError: see `load_run`; or a head on another bank.
    """
    run = load_run(folder)
    if bank is not None:
        check_bank(folder, run, bank)
    return run.head


def check_bank(folder: Path, run: HeadRun, bank: Bank) -> None:
    """Refuse a bank that is not the run's.

    Raises:
        TrainingError: it is another one.
    """
    if bank.sha256 != run.bank:
        raise TrainingError(
            f"{folder} was trained on bank {str(run.bank)[:12]}, not {bank.sha256[:12]}; "
            "give its own"
        )


def write_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Write tensors with notes, whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch, notes)
    scratch.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors with their notes.

    Raises:
        TrainingError: no such file, or a broken one.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
        return load_file(path), notes
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); remove it and train again") from None
