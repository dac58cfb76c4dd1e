"""Fitted modules at rest: weights as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from server.contract import WindowSpec
from server.preprocess import PreprocessSpec
from training.clips import TrainingError
from training.encoder import Encoder, EncoderSpec
from training.head import Head, HeadSpec

CHECKPOINT = "checkpoint.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a detector comes from.

    Attributes:
        name: of the recipe.
        manifest_sha256: hash of what there was to train on.
        clips: sha256 of every training clip's file, sorted.
        code_version: version of this project that trained.
        seeds: every seed used.
        metrics: out-of-fold figures, by name.
        threshold: default open threshold.
        threshold_rule: how it was chosen.
    """

    name: str
    manifest_sha256: str
    clips: tuple[str, ...]
    code_version: str
    seeds: tuple[int, ...]
    metrics: dict[str, float]
    threshold: float
    threshold_rule: str


@dataclass(frozen=True, slots=True)
class Detector:
    """A fitted encoder and head, in evaluation mode."""

    encoder: Encoder
    head: Head

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the weights of the run with that fingerprint, whole or not at all."""
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        scratch = path.with_name(f".{path.name}")
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            scratch,
            {"fingerprint": fingerprint},
        )
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path, encoder: EncoderSpec, head: HeadSpec) -> Detector:
        """Read the weights.

        Raises:
            TrainingError: no file, or weights of other shapes.
        """
        detector = cls(Encoder(encoder), Head(head))
        try:
            tensors = load_file(path)
            for part, module in (("encoder.", detector.encoder), ("head.", detector.head)):
                chosen = {k[len(part) :]: v for k, v in tensors.items() if k.startswith(part)}
                module.load_state_dict(chosen)
                module.eval()
        except (OSError, RuntimeError, SafetensorError) as error:
            raise TrainingError(f"{path} does not hold this detector's weights ({error})") from None
        return detector


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that an export needs.

    Attributes:
        detector: trained on every clip.
        window: geometry of windows.
        preprocess: how frames are rendered.
        provenance: where it comes from.
    """

    detector: Detector
    window: WindowSpec
    preprocess: PreprocessSpec
    provenance: Provenance

    def describe(self, folder: Path) -> None:
        """Describe the weights that the run has left in the folder."""
        content = {
            "encoder": asdict(self.detector.encoder.spec),
            "head": asdict(self.detector.head.spec),
            "window": asdict(self.window),
            "preprocess": asdict(self.preprocess),
            "provenance": asdict(self.provenance),
        }
        (folder / CHECKPOINT).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read what a training run left.

    Raises:
        TrainingError: the folder holds no finished run, or a broken one.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise TrainingError(
            f"{folder} holds no {CHECKPOINT}; give the folder of a finished gvvad-train train"
        )
    try:
        content = json.loads(path.read_bytes())
        provenance = content["provenance"]
        lists = {name: tuple(provenance[name]) for name in ("clips", "seeds")}
        encoder = EncoderSpec(**content["encoder"])
        head = HeadSpec(**content["head"] | {"hidden": tuple(content["head"]["hidden"])})
        window = WindowSpec(**content["window"])
        preprocess = PreprocessSpec(**content["preprocess"])
        described = Provenance(**(provenance | lists))
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); train again") from None
    return Checkpoint(Detector.load(folder / WEIGHTS, encoder, head), window, preprocess, described)


def saved_fingerprint(path: Path) -> str | None:
    """Fingerprint of the run that left these weights; None where there are none."""
    try:
        with safe_open(path, "pt") as weights:
            return (weights.metadata() or {}).get("fingerprint")
    except (OSError, SafetensorError):
        return None
