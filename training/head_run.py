"""A finished run on features, at rest: the head's weights and what is known of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.bank import Bank
from training.clips import TrainingError
from training.density import Density, DensitySpec
from training.head import Head, HeadSpec
from training.semantic import BankSize

HEAD_WEIGHTS = "head.safetensors"
HEAD_FILE = "head.json"

DENSITY = "density"
"""What a run's description calls its detector; a head that labels taught has no such note."""

AnyHead = Head | Density


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

    head: AnyHead
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

    @property
    def causal(self) -> bool:
        """Whether a score depends on nothing later."""
        return isinstance(self.head, Density) or self.head.spec.causal

    @property
    def reads_captions(self) -> bool:
        """Whether it needs sentences about every window."""
        return isinstance(self.head, Head) and self.head.spec.text == "caption"


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
        head = _empty_head(content)
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


def _empty_head(content: dict[str, Any]) -> AnyHead:
    """Of the size that a run's description tells, without its weights."""
    spec = content["head"]
    if content.get("detector") == DENSITY:
        return Density(DensitySpec(**spec))
    size = None if spec["bank"] is None else BankSize(**spec["bank"])
    return Head(HeadSpec(**spec | {"hidden": tuple(spec["hidden"]), "bank": size}))


def save_density_run(folder: Path, run: HeadRun) -> None:
    """Write a density as `load_run` reads it."""
    write_tensors(
        folder / HEAD_WEIGHTS, dict(run.head.state_dict()), {"fingerprint": run.fingerprint}
    )
    content = {
        "detector": DENSITY,
        "name": run.name,
        "head": asdict(run.head.spec),
        "recipe": run.recipe,
        "encoder": run.encoder,
        "bank": None,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
        "code_version": run.code_version,
        "chosen": {"auc": run.auc},
        "threshold": {"value": run.threshold, "chosen": run.threshold_rule},
        "clips": run.clips,
    }
    write_description(folder, content)


def write_description(folder: Path, content: dict[str, Any]) -> None:
    """Write what is known of a run, whole or not at all."""
    scratch = folder / f".{HEAD_FILE}"
    scratch.write_text(json.dumps(content, indent=1) + "\n")
    scratch.replace(folder / HEAD_FILE)


def load_head(folder: Path, bank: Bank | None = None) -> AnyHead:
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
