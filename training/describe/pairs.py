"""An anomalous and a normal description of one scene, and their rows in a manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Protocol

from training.describe.sampling import Sample
from training.manifest import Row, seed_of

DATASET = "generated"

_PAIR_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Pair:
    """Two descriptions.

    Attributes:
        anomalous: the scene with its anomalous event.
        normal: the same scene with nothing anomalous.
    """

    anomalous: str
    normal: str


class UnfitAnswerError(ValueError):
    """A writer gave something that is no pair; it may be asked again."""


class Writer(Protocol):
    """Who writes pairs.

    Attributes:
        name: for the report.
        concurrency: pairs that it writes at the same time.
        attempts: how often it is asked for a pair before that is given up.
    """

    name: str
    concurrency: int
    attempts: int

    def write(self, sample: Sample, attempt: int) -> Pair:
        """Write a pair; the same arguments give the same pair.

        Args:
            sample: its elements.
            attempt: from 0; another one gives other words for the same elements.

        Raises:
            UnfitAnswerError: what came is no pair.
            TrainingError: nothing came.
        """


def rows_of(sample: Sample, pair: Pair) -> tuple[Row, Row]:
    """The pair's lines, the anomalous one first."""
    elements = {
        "viewpoint": sample.viewpoint,
        "location": sample.location,
        "subject": sample.subject,
        "event": sample.event.does,
    }
    content = json.dumps([elements, sample.class_name, pair.anomalous, pair.normal])
    pair_id = hashlib.sha256(content.encode()).hexdigest()[:_PAIR_ID_DIGITS]
    shared = {"source": "synthetic", "group": pair_id, "dataset": DATASET, "pair_id": pair_id}

    def row(label: str, class_name: str, description: str) -> Row:
        row_id = f"{pair_id}-{label}"
        texts = {"id": row_id, "label": label, "class": class_name, "description": description}
        return Row.model_validate(shared | elements | texts | {"seed": seed_of(row_id)})

    return row("anomalous", sample.class_name, pair.anomalous), row("normal", "", pair.normal)
