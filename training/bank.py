"""A bank at rest: sentences and prompts with their vectors, and a hash over all of it.

The hash stands in every checkpoint that was trained with the bank.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from training.clips import TrainingError
from training.semantic import BankVectors
from training.sentences import Sentence, Wording

SCHEMA = 1

Control = Literal["none", "random", "shuffled"]


@dataclass(frozen=True, slots=True)
class Bank:
    """Texts and their unit vectors.

    Attributes:
        wording: templates, sentences and prompts.
        vectors: of each, means over the templates.
        model: the text tower's name.
        weights: its pretrained tag, or the hash of its weights' file.
        control: what was done to the vectors, to see what they are worth.
    """

    wording: Wording
    vectors: BankVectors
    model: str
    weights: str
    control: str = "none"

    @property
    def sha256(self) -> str:
        """Of texts, vectors and where they come from."""
        digest = hashlib.sha256(self._notes().encode())
        for tensor in self._tensors().values():
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def _notes(self) -> str:
        wording = self.wording
        content = {
            "schema": SCHEMA,
            "model": self.model,
            "weights": self.weights,
            "control": self.control,
            "templates": wording.templates,
            "sentences": [[s.text, s.anomalous, s.kind] for s in wording.sentences],
            "anomaly_prompts": wording.anomaly_prompts,
            "normal_prompts": wording.normal_prompts,
        }
        return json.dumps(content, sort_keys=True)

    def _tensors(self) -> dict[str, Tensor]:
        return {one.name: getattr(self.vectors, one.name) for one in fields(self.vectors)}

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}")
        # One value: a file of several is not written in the same order twice.
        notes = json.dumps({"sha256": self.sha256, "bank": self._notes()})
        save_file(self._tensors(), scratch, {"bank": notes})
        scratch.replace(path)


def load_bank(path: Path) -> Bank:
    """Read a bank.

    Raises:
        TrainingError: no bank, of another schema, or one whose hash does not fit.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {})["bank"])
        content, tensors = json.loads(notes["bank"]), load_file(path)
        if content["schema"] != SCHEMA:
            raise TrainingError(f"{path} is a bank of schema {content['schema']}, not {SCHEMA}")
        wording = Wording(
            tuple(content["templates"]),
            tuple(Sentence(*entry) for entry in content["sentences"]),
            tuple(content["anomaly_prompts"]),
            tuple(content["normal_prompts"]),
        )
        vectors = BankVectors(**tensors)
        bank = Bank(wording, vectors, content["model"], content["weights"], content["control"])
        expected = notes["sha256"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError(f"{path} cannot be read as a bank ({error}); make it again") from None
    if bank.sha256 != expected:
        raise TrainingError(f"{path} does not match its hash; make it again")
    return bank


def controlled(bank: Bank, control: Control, seed: int) -> Bank:
    """A bank that knows less, to see what knowledge is worth.

    "random" takes directions by chance; "shuffled" deals the sentences' and prompts' own
    vectors out anew, so that none stands for its text.
    """
    if control == "none":
        return bank
    random = torch.Generator().manual_seed(seed)
    parts = list(bank._tensors().values())
    joined = torch.cat(parts)
    if control == "random":
        joined = functional.normalize(torch.randn(joined.shape, generator=random), dim=1)
    else:
        joined = joined[torch.randperm(len(joined), generator=random)]
    vectors = BankVectors(*torch.split(joined, [len(part) for part in parts]))
    return replace(bank, vectors=vectors, control=f"{control}-{seed}")
