"""The bank's sentences: a readable YAML grammar to whole sentences, always the same ones.

A group combines subjects, events and places; viewpoints take turns over all
sentences of a half, so that in groups of a multiple of their number each is as
frequent among anomalies as among ordinary scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import Field

from training.clips import TrainingError
from training.recipe import Part, read_yaml
from training.semantic import NEAREST

SURVEILLANCE = Path(__file__).parent / "banks" / "surveillance.yaml"

Words = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
Phrases = Annotated[tuple[Words, ...], Field(min_length=1)]
Template = Annotated[str, Field(max_length=200, pattern=r"^[^{}]*\{\}[^{}]*$")]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the bank.

    Attributes:
        text: a whole sentence.
        anomalous: its label.
        kind: what it belongs to, such as "robbery"; for explanations.
    """

    text: str
    anomalous: bool
    kind: str


@dataclass(frozen=True, slots=True)
class Wording:
    """All texts that a bank embeds.

    Attributes:
        templates: each holds "{}" once; a text's embedding is the mean over them.
        sentences: (K) distinct, of both labels.
        anomaly_prompts: (P) distinct; M of ALGORITHM.md 8.
        normal_prompts: (Q) distinct; N of ALGORITHM.md 8.
    """

    templates: tuple[str, ...]
    sentences: tuple[Sentence, ...]
    anomaly_prompts: tuple[str, ...]
    normal_prompts: tuple[str, ...]

    def __post_init__(self) -> None:
        texts = [sentence.text for sentence in self.sentences]
        if len(texts) < NEAREST:
            raise TrainingError(f"{len(texts)} sentences; at least {NEAREST} are needed")
        if len({sentence.anomalous for sentence in self.sentences}) < 2:
            raise TrainingError("all sentences are of one label; give anomalous and normal ones")
        if not self.templates or not self.anomaly_prompts or not self.normal_prompts:
            raise TrainingError("templates and prompts of both labels are needed; one is empty")
        _refuse_repeats("sentence", texts)
        _refuse_repeats("prompt", [*self.anomaly_prompts, *self.normal_prompts])
        _refuse_repeats("template", self.templates)

    @property
    def texts(self) -> list[str]:
        """(K + P + Q) sentences, anomaly prompts, normal prompts."""
        sentences = [sentence.text for sentence in self.sentences]
        return [*sentences, *self.anomaly_prompts, *self.normal_prompts]


def _refuse_repeats(what: str, texts: Sequence[str]) -> None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise TrainingError(f"the {what} {text[:200]!r} appears twice; keep it once")
        seen.add(text)


class Group(Part):
    """Subjects, events and places of which every combination makes a sentence.

    Attributes:
        kind: name of what it is.
        subjects: all singular or all plural.
        events: verb and object, agreeing with every subject.
        places: where or when.
    """

    kind: Words
    subjects: Phrases
    events: Phrases
    places: Phrases


class Grammar(Part):
    """A file of sentences."""

    templates: Annotated[tuple[Template, ...], Field(min_length=1)]
    viewpoints: Phrases
    anomalous: Annotated[tuple[Group, ...], Field(min_length=1)]
    normal: Annotated[tuple[Group, ...], Field(min_length=1)]
    anomaly_prompts: Phrases
    normal_prompts: Phrases

    def wording(self) -> Wording:
        """Every sentence of the grammar, anomalies first, in the file's order."""
        sentences = [
            *self._half(self.anomalous, anomalous=True),
            *self._half(self.normal, anomalous=False),
        ]
        return Wording(self.templates, tuple(sentences), self.anomaly_prompts, self.normal_prompts)

    def _half(self, groups: tuple[Group, ...], *, anomalous: bool) -> list[Sentence]:
        sentences: list[Sentence] = []
        for group in groups:
            for subject, event, place in product(group.subjects, group.events, group.places):
                viewpoint = self.viewpoints[len(sentences) % len(self.viewpoints)]
                text = f"{viewpoint}, {subject} {event} {place}."
                sentences.append(Sentence(text, anomalous, group.kind))
        return sentences


def load_wording(path: Path) -> Wording:
    """Read a file of sentences; unknown keys are refused.

    Raises:
        TrainingError: no file, no YAML mapping, a value that does not fit, a text twice.
    """
    grammar = read_yaml(path, Grammar, "sentences")
    try:
        return grammar.wording()
    except TrainingError as error:
        raise TrainingError(f"sentences {path}: {error}") from None
