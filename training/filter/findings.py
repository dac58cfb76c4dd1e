"""What a run of the filter found, at rest, for its report and for ablations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from pydantic import Field, ValidationError

from training.clips import TrainingError
from training.filter.criteria import Values
from training.filter.verdicts import ByHand, Judged, Rule, Verdict
from training.recipe import Part, read_yaml

FINDINGS = "verdicts.json"
OVERRIDES = "overrides.yaml"

_HEAD = """\
# Decide by hand: put ids below keep or discard, then run the same command again.
# The sheets kept.png, discarded.png and borderline.png show the videos beside their ids.
"""
_PERCENTILES = (5, 50, 95)


class Findings(Part):
    """All that a run found.

    Attributes:
        encoder: hash of the encoder that looked.
        rule: how videos were chosen.
        real: 5th, 50th and 95th percentile of real footage, by criterion.
        videos: generated ones under every criterion.
        verdicts: what became of them, in the same order.
        skipped: why others could not be judged, by id.
    """

    encoder: str
    rule: Rule
    real: dict[str, tuple[float, float, float]]
    videos: tuple[Judged, ...] = Field(min_length=1)
    verdicts: tuple[Verdict, ...]
    skipped: dict[str, str]

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        scratch = folder / f".{FINDINGS}"
        scratch.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")
        scratch.replace(folder / FINDINGS)


def percentiles(values: Values) -> tuple[float, float, float]:
    """5th, 50th and 95th."""
    low, middle, high = np.percentile(values, _PERCENTILES)
    return float(low), float(middle), float(high)


def load_findings(path: Path) -> Findings:
    """Read what a run of the filter left.

    Raises:
        TrainingError: no such file, or something else.
    """
    try:
        return Findings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path} cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrainingError(
            f"{path} is no {FINDINGS} of gvvad-train filter ({where}: {first['msg']}); run filter"
        ) from None


class _Lists(Part):
    keep: tuple[str, ...] | None = None
    discard: tuple[str, ...] | None = None


def load_overrides(path: Path, known: frozenset[str]) -> ByHand:
    """Read what a person decided.

    Args:
        path: YAML with the lists `keep` and `discard`.
        known: ids of generated videos.

    Raises:
        TrainingError: no such file, another form, an id that is not known, or one in both lists.
    """
    lists = read_yaml(path, _Lists, "overrides")
    keep, discard = frozenset(lists.keep or ()), frozenset(lists.discard or ())
    strange = sorted((keep | discard) - known)
    if strange:
        raise TrainingError(
            f"overrides {path}: {strange[0]!r} is no generated video of this manifest; take it "
            "out, or correct it by the ids under the pictures"
        )
    if keep & discard:
        raise TrainingError(
            f"overrides {path}: {min(keep & discard)!r} is to be kept and discarded; decide"
        )
    return ByHand(keep, discard)


def write_overrides(path: Path, by_hand: ByHand, nearest: list[Verdict]) -> None:
    """Write the file for a person to edit, with what stood there and who is near the decision."""
    content = {"keep": sorted(by_hand.keep), "discard": sorted(by_hand.discard)}
    lines = [
        f"#   {verdict.id}  # {verdict.label}, {'kept' if verdict.kept else 'discarded'}, "
        f"{verdict.reason}\n"
        for verdict in nearest
    ]
    scratch = path.with_name(f".{path.name}")
    told = "# Nearest to the decision:\n" + "".join(lines) if lines else ""
    scratch.write_text(_HEAD + yaml.safe_dump(content) + told)
    scratch.replace(path)
