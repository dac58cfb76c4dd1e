"""Write pairs from the taxonomy's phrases: no network, and the same words for the same seed.

Both halves share the sentence's form, camera, scene, light and subject; only
what happens differs, so that nothing else tells one label from the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from training.describe.pairs import Pair
from training.describe.sampling import Sample
from training.describe.taxonomy import Taxonomy

_SENTENCE_START = re.compile(r"(^|[.!?] )([a-z])")


@dataclass(frozen=True, slots=True)
class Scene:
    """Words for what both halves of a pair share.

    Attributes:
        view: the camera.
        at: preposition before the place.
        place: as a noun phrase.
        light: as an adverbial.
        subject: with its look.
        is_: the verb that agrees with it.
    """

    view: str
    at: str
    place: str
    light: str
    subject: str
    is_: str


def draw_scene(taxonomy: Taxonomy, sample: Sample, chance: Random) -> Scene:
    """Choose words for what both halves of a pair share."""
    viewpoint = taxonomy.viewpoints[sample.viewpoint]
    location = taxonomy.locations[sample.location]
    subject = taxonomy.subjects[sample.subject]
    looks = subject.looks or taxonomy.looks[subject.kind]
    if viewpoint.in_colour and subject.looks is None:
        looks += taxonomy.colours[subject.kind]
    return Scene(
        view=chance.choice(viewpoint.views),
        at=location.at,
        place=chance.choice(location.scenes),
        light=chance.choice(taxonomy.lights[viewpoint.lights or location.setting]),
        subject=f"{chance.choice(subject.phrases)} {chance.choice(looks)}",
        is_="are" if subject.kind == "people" else "is",
    )


class GrammarWriter:
    """Chance chooses among the phrases that fit, by the seed, the pair and the attempt."""

    name = "grammar"
    concurrency = 1
    attempts = 20

    def __init__(self, taxonomy: Taxonomy, seed: int) -> None:
        self._taxonomy, self._seed = taxonomy, seed

    def write(self, sample: Sample, attempt: int) -> Pair:
        """Write a pair; see `Writer`."""
        chance = Random(f"words of {self._seed}, {sample.index}, {attempt}")
        location = self._taxonomy.locations[sample.location]
        kind = self._taxonomy.subjects[sample.subject].kind
        scene = draw_scene(self._taxonomy, sample, chance)
        template = chance.choice(self._taxonomy.templates)
        others = chance.choice(location.others)

        def sentence(does: str, courses: Sequence[str], around: Sequence[str]) -> str:
            text = template.format(
                view=scene.view,
                at=scene.at,
                scene=scene.place,
                light=scene.light,
                subject=scene.subject,
                does=does,
                course=chance.choice(courses),
                around=chance.choice(around).replace("{others}", others),
                **{"is": scene.is_},
            )
            return _SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), text)

        ordinary = chance.choice(self._taxonomy.ordinary_of(sample.location, sample.subject))
        return Pair(
            sentence(sample.event.does, sample.event.courses, self._reactions(sample)),
            sentence(ordinary, self._taxonomy.manners[kind], location.calm),
        )

    def _reactions(self, sample: Sample) -> tuple[str, ...]:
        one = self._taxonomy.classes[sample.class_name]
        return one.reactions + (self._taxonomy.reactions if one.general_reactions else ())
