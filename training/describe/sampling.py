"""Draw the four elements so that every one has its turn.

Independent draws leave gaps in a few hundred pairs. Here whatever has been used
least for its weight comes next, and chance decides between equals alone. The
draw of a pair depends on the ones before it and on the seed, never on how many
follow: more pairs begin with the fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from training.describe.taxonomy import Event, Taxonomy


# How much more the use beside the same class counts than the use overall, when a name is chosen.
_BESIDE = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """The elements of one pair.

    Attributes:
        index: of the pair, from 0.
        class_name: of the anomaly.
        viewpoint: name in the taxonomy.
        location: name in the taxonomy.
        subject: name in the taxonomy.
        event: what is anomalous.
    """

    index: int
    class_name: str
    viewpoint: str
    location: str
    subject: str
    event: Event


class _Turns:
    """What was used how often, overall and beside what."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(f"elements of {seed}")
        self._used: Counter[tuple[str, ...]] = Counter()

    def take(self, what: str, beside: str, weights: Mapping[str, float]) -> str:
        """Name of the one whose turn it is among those that fit.

        Both counts matter: alone, the overall one would send a class to whichever location few
        others fit, and the one beside the class would favour locations that many classes fit.
        """
        burdens = {
            name: (self._used[what, name] + _BESIDE * self._used[what, beside, name] + 1) / weight
            for name, weight in weights.items()
        }
        least = min(burdens.values())
        chosen = self._chance.choice([name for name, load in burdens.items() if load == least])
        self._used[what, chosen] += 1
        self._used[what, beside, chosen] += 1
        return chosen


def samples(taxonomy: Taxonomy, seed: int) -> Iterator[Sample]:
    """Elements of one pair after another, without end."""
    turns = _Turns(seed)
    classes = {name: one.weight for name, one in taxonomy.classes.items()}
    index = 0
    while True:
        name = turns.take("class", "", classes)
        locations = taxonomy.classes[name].locations
        location = turns.take(
            "location", name, {place: taxonomy.locations[place].weight for place in locations}
        )
        seen_from = taxonomy.locations[location].viewpoints
        viewpoint = turns.take(
            "viewpoint", location, {view: taxonomy.viewpoints[view].weight for view in seen_from}
        )
        fitting = taxonomy.subjects_of(name, location)
        subject = turns.take(
            "subject", name, {who: taxonomy.subjects[who].weight for who in fitting}
        )
        events = {event.does: event for event in taxonomy.events_of(name, location, subject)}
        does = turns.take("event", name, dict.fromkeys(events, 1.0))
        yield Sample(index, name, viewpoint, location, subject, events[does])
        index += 1
