"""A bundle's bank: the sentences that its head can name a window by.

The head's graph holds their vectors; here are the words, so that a score can be
told in them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA = 1
TOLD = 3
"""Sentences that are told of a window; the head weighs more."""


class BankError(ValueError):
    """A bank that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class NearSentence:
    """A sentence that a window resembles.

    Attributes:
        text: the sentence.
        anomalous: whether it describes an anomaly.
        weight: its share of what the head read, in [0, 1].
    """

    text: str
    anomalous: bool
    weight: float


Explanation = tuple[NearSentence, ...]
"""The nearest sentences, nearest first; empty where a bundle has no bank."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """A bank's sentences, by the index that the head names them by.

    Attributes:
        sha256: of the whole bank, vectors included; a head's checkpoint names it.
        model: the text tower that made the vectors.
        texts: K sentences.
        anomalous: whether each describes an anomaly.
    """

    sha256: str
    model: str
    texts: tuple[str, ...]
    anomalous: tuple[bool, ...]

    def explain(
        self, indices: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]
    ) -> Explanation:
        """Words for one window.

        Args:
            indices: (a,) nearest first, each 0 to K - 1.
            weights: (a,) in [0, 1].
        """
        return tuple(
            NearSentence(self.texts[index], self.anomalous[index], float(weight))
            for index, weight in zip(indices[:TOLD].tolist(), weights[:TOLD], strict=True)
        )

    def write(self, path: Path) -> None:
        """Write `bank.json`."""
        content = {
            "schema": SCHEMA,
            "sha256": self.sha256,
            "model": self.model,
            "sentences": [
                {"text": text, "anomalous": anomalous}
                for text, anomalous in zip(self.texts, self.anomalous, strict=True)
            ],
        }
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_sentences(path: Path) -> Sentences:
    """Read `bank.json`.

    Raises:
        BankError: it is of another schema, or no bank.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != SCHEMA:
            raise BankError(f"{path} has a schema that this server does not read, not {SCHEMA}")
        entries = content["sentences"]
        return Sentences(
            _text(content["sha256"]),
            _text(content["model"]),
            tuple(_text(entry["text"]) for entry in entries),
            tuple(entry["anomalous"] is True for entry in entries),
        )
    except BankError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BankError(f"{path} is no bank of sentences ({type(error).__name__})") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("text was expected")
    return value
