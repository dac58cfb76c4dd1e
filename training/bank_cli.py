"""gvvad-train bank: sentences to vectors, once, for heads that read no captions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from training.bank import Bank, controlled
from training.clips import TrainingError
from training.semantic import BankVectors
from training.sentences import SURVEILLANCE, load_wording
from training.text_tower import load_tower


def add_bank(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "bank",
        help="encode sentences, for heads that describe windows without captions",
        description="Encode sentences and prompts with a text tower of open_clip. The features "
        "that a head on this bank reads must come from the same model's visual tower.",
    )
    parser.add_argument("--model", default="ViT-L-14", help="name, or a model's JSON file")
    parser.add_argument("--pretrained", required=True, help="open_clip's tag, or a weights file")
    parser.add_argument(
        "--sentences", type=Path, default=SURVEILLANCE, help="YAML; see the default"
    )
    parser.add_argument(
        "--control",
        choices=("none", "random", "shuffled"),
        default="none",
        help="vectors that stand for nothing, to see what the bank is worth",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the control (default 0)")
    parser.add_argument("--out", required=True, type=Path, help="file to write, .safetensors")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line")


def run_bank(options: argparse.Namespace) -> None:
    """Make a bank.

    Raises:
        TrainingError: sentences, model or weights cannot be used.
    """
    if options.seed < 0:
        raise TrainingError(f"--seed ({options.seed}) must be 0 or more")
    wording = load_wording(options.sentences)
    tower = load_tower(options.model, options.pretrained)
    texts = wording.texts
    with tqdm(total=len(texts), desc="bank", unit="text", disable=None) as bar:
        rows = tower.vectors(texts, wording.templates, bar.update)
    ends = (len(wording.sentences), len(wording.sentences) + len(wording.anomaly_prompts))
    vectors = BankVectors(rows[: ends[0]], rows[ends[0] : ends[1]], rows[ends[1] :])
    bank = controlled(
        Bank(wording, vectors, tower.name, tower.weights), options.control, options.seed
    )
    bank.save(options.out)
    found = {
        "bank": str(options.out),
        "sha256": bank.sha256,
        "model": bank.model,
        "weights": bank.weights,
        "control": bank.control,
        "sentences": len(wording.sentences),
        "dim": rows.shape[1],
    }
    if options.json:
        print(json.dumps(found))
    else:
        print(f"{found['sentences']} sentences of {found['dim']} numbers in {options.out}")
        print(f"sha256 {bank.sha256}")
