"""Have a language model write the pairs, from the same four elements.

GV-VAD had GPT-4o do it (arXiv 2508.00312, II-A and III); any model behind an
OpenAI-compatible endpoint will do here. The prompt is our own.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.describe.answers import Answer, Answers, Request
from training.describe.endpoint import Endpoint, Patience, Place
from training.describe.grammar import draw_scene
from training.describe.pairs import Pair, UnfitAnswerError
from training.describe.sampling import Sample
from training.describe.taxonomy import Taxonomy

_SYSTEM = """\
You describe surveillance footage for a text-to-video model. For the scene that you are given, \
answer with one JSON object that holds two strings, "anomalous" and "normal".

Both: one to three plain English sentences in the present tense, 25 to 55 words in all. Say where \
the camera hangs, what place it sees, the light, and who is there and how they look; use the same \
camera, place, light and subject in both.
"anomalous": the subject does what the anomalous event says. Show how it goes on and what others \
do about it.
"normal": another moment of the same scene. The subject does something that is ordinary in such a \
place, and so does everybody else. Neither mention the anomaly nor hint at it, not even to say \
that it does not happen.

Describe only what a fixed, silent camera can see: no thoughts, no sounds, no names, no writing, \
no cuts. Show no blood, no nudity and no harm to children."""

_SCHEMA = json.dumps(
    {
        "name": "pair",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"anomalous": {"type": "string"}, "normal": {"type": "string"}},
            "required": ["anomalous", "normal"],
            "additionalProperties": False,
        },
    },
    sort_keys=True,
)

# In plain JSON mode some models put the object into a fence or a sentence.
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)

_Description = Annotated[str, Field(min_length=1, max_length=4000)]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    anomalous: _Description
    normal: _Description


@dataclass(frozen=True, slots=True)
class Spent:
    """What some answers cost.

    Attributes:
        answers: how many.
        input_tokens: as the endpoint counted them.
        output_tokens: likewise.
    """

    answers: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def plus(self, answer: Answer) -> Spent:
        """With one more answer."""
        return Spent(
            self.answers + 1,
            self.input_tokens + answer.input_tokens,
            self.output_tokens + answer.output_tokens,
        )

    def and_also(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(
            self.answers + other.answers,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def cost(self, price_in: float, price_out: float) -> float:
        """At prices of a million tokens, in their currency."""
        return (self.input_tokens * price_in + self.output_tokens * price_out) / 1e6


class EndpointWriter:
    """Asks an endpoint, or the answers kept on disk.

    Attributes:
        asked: what this run had to ask for.
        kept: what was answered before.
    """

    attempts = 5

    def __init__(
        self, taxonomy: Taxonomy, seed: int, endpoint: tuple[Place, Patience], answers: Answers
    ) -> None:
        place, patience = endpoint
        self.name = f"openai ({place.model})"
        self.concurrency = patience.concurrency
        self.asked, self.kept = Spent(), Spent()
        self._taxonomy, self._seed, self._model = taxonomy, seed, place.model
        self._endpoint, self._answers = Endpoint(place, patience), answers
        self._counting = threading.Lock()

    @property
    def by_schema(self) -> bool:
        """Whether the endpoint took the answer's schema, as far as is known."""
        return self._endpoint.by_schema

    def write(self, sample: Sample, attempt: int) -> Pair:
        """Write a pair; see `Writer`."""
        request = Request(self._model, _SYSTEM, self._elements(sample, attempt), _SCHEMA)
        answer = self._answers.find(request)
        if answer is not None:
            with self._counting:
                self.kept = self.kept.plus(answer)
        else:
            answer = self._endpoint.ask(request)
            self._answers.keep(request, answer)
            with self._counting:
                self.asked = self.asked.plus(answer)
        return _pair_of(answer.content)

    def close(self) -> None:
        """Let the endpoint go."""
        self._endpoint.close()

    def _elements(self, sample: Sample, attempt: int) -> str:
        """The user's message; light and look vary it, so that like elements give unlike texts."""
        chance = Random(f"asks of {self._seed}, {sample.index}, {attempt}")
        scene = draw_scene(self._taxonomy, sample, chance)
        return (
            f"camera viewpoint: {scene.view}\n"
            f"location: {scene.place}\n"
            f"light: {scene.light}\n"
            f"subject: {scene.subject}\n"
            f"anomalous event: {sample.event.does} ({sample.class_name})\n"
            f"scene {sample.index + 1} of series {self._seed}, draft {attempt + 1}"
        )


def _pair_of(content: str) -> Pair:
    found = _OBJECT.search(content)
    if found is None:
        raise UnfitAnswerError(f"no JSON object came, but {' '.join(content.split())[:60]!r}")
    try:
        written = _Written.model_validate_json(found[0])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnfitAnswerError(f"{where + ': ' if where else ''}{first['msg']}") from None
    anomalous, normal = (" ".join(text.split()) for text in (written.anomalous, written.normal))
    if anomalous == normal:
        raise UnfitAnswerError("both descriptions are the same")
    return Pair(anomalous, normal)
