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
from itertools import count
from random import Random

from training.describe.taxonomy import Event, Taxonomy

# How much more than the use overall the use beside the same class counts for a location, so that
# a class soon has been everywhere.
_BESIDE_CLASS = 4


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

    def take(
        self, what: str, weights: Mapping[str, float], beside: str = "", beside_weight: int = 1
    ) -> str:
        """Name of the one whose turn it is among those that fit.

        Both counts matter: alone, the overall one would send a class to whichever location few
        others fit, and the one beside the class would favour locations that many classes fit.
        """
        used = self._used
        burdens = {
            name: (used[what, name] + beside_weight * used[what, beside, name] + 1) / weight
            for name, weight in weights.items()
        }
        least = min(burdens.values())
        chosen = self._chance.choice([name for name, load in burdens.items() if load == least])
        used[what, chosen] += 1
        used[what, beside, chosen] += 1
        return chosen


def samples(taxonomy: Taxonomy, seed: int) -> Iterator[Sample]:
    """Elements of one pair after another, without end."""
    turns = _Turns(seed)
    classes = {name: one.weight for name, one in taxonomy.classes.items()}
    for index in count():
        name = turns.take("class", classes)
        fitting = taxonomy.classes[name].locations
        places = {place: taxonomy.locations[place].weight for place in fitting}
        location = turns.take("location", places, name, _BESIDE_CLASS)
        seen_from = taxonomy.locations[location].viewpoints
        views = {view: taxonomy.viewpoints[view].weight for view in seen_from}
        viewpoint = turns.take("viewpoint", views, location)
        coming = taxonomy.subjects_of(name, location)
        people = {who: taxonomy.subjects[who].weight for who in coming}
        subject = turns.take("subject", people, name)
        events = {event.does: event for event in taxonomy.events_of(name, location, subject)}
        does = turns.take("event", dict.fromkeys(events, 1.0), name)
        yield Sample(index, name, viewpoint, location, subject, events[does])
