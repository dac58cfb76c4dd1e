"""The four elements of a description as a readable YAML file, checked as a whole.

Every name that one part uses is defined in another, and whatever can be drawn
together can also be written: a class, a location of it and a subject of both
always have an event, and that subject something ordinary to do there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field

from training.clips import TrainingError
from training.recipe import Part, Positive, read_yaml
from training.sentences import Phrases, Words

SURVEILLANCE = Path(__file__).parent / "taxonomy.yaml"

TEMPLATE_FIELDS = frozenset({"view", "scene", "light", "subject", "does", "course", "around"})
OPTIONAL_FIELDS = frozenset({"is", "at"})

Kind = Literal["person", "people", "vehicle"]
Names = Annotated[tuple[Words, ...], Field(min_length=1)]


class Viewpoint(Part):
    """Where a camera hangs.

    Attributes:
        views: noun phrases for the camera.
        weight: how often it is drawn beside others.
        lights: key of the taxonomy's lights, where it has its own.
        in_colour: whether colours can be seen.
    """

    views: Phrases
    weight: Positive = 1
    lights: Words | None = None
    in_colour: bool = True


class Subject(Part):
    """Who acts.

    Attributes:
        kind: decides the verb's number, looks and ordinary moments.
        phrases: noun phrases.
        weight: how often it is drawn beside others.
        looks: its own, in place of those of its kind.
        ordinary: its own, in place of what the location has for its kind.
    """

    kind: Kind
    phrases: Phrases
    weight: Positive = 1
    looks: Phrases | None = None
    ordinary: Phrases | None = None


class Location(Part):
    """Where a camera looks.

    Attributes:
        setting: key of the taxonomy's lights.
        at: preposition before a scene.
        scenes: noun phrases.
        viewpoints: names of those it is seen from.
        subjects: names of those that come there.
        others: plural nouns, for {others}.
        ordinary: participle phrases by kind of subject.
        calm: clauses of what goes on around an ordinary moment.
        weight: how often it is drawn beside others.
    """

    setting: Words
    at: Words
    scenes: Phrases
    viewpoints: Names
    subjects: Names
    others: Phrases
    ordinary: dict[Kind, Phrases]
    calm: Phrases
    weight: Positive = 1


class Event(Part):
    """What happens.

    Attributes:
        does: participle phrase after "is".
        courses: phrases that continue it.
        at: names of the only locations that it fits; empty for all of its class.
        kinds: of the only subjects that it fits; empty for all of its class.
    """

    does: Words
    courses: Phrases
    at: tuple[Words, ...] = ()
    kinds: tuple[Kind, ...] = ()

    def fits(self, location: str, kind: Kind) -> bool:
        """Whether a subject of that kind can do it there."""
        return (not self.at or location in self.at) and (not self.kinds or kind in self.kinds)


class AnomalyClass(Part):
    """A class of anomalies.

    Attributes:
        names: published names that it stands for, by data set.
        locations: names of those that it fits.
        subjects: names of those that it fits.
        events: of the class.
        reactions: clauses of what goes on around it.
        general_reactions: whether the taxonomy's reactions fit too.
        words: that give it away in a normal description.
        weight: how often it is drawn beside others.
    """

    names: dict[str, tuple[Words, ...]] = Field(default_factory=dict)
    locations: Names
    subjects: Names
    events: Annotated[tuple[Event, ...], Field(min_length=1)]
    reactions: Phrases
    general_reactions: bool = True
    words: Phrases
    weight: Positive = 1


class Taxonomy(Part):
    """The whole file; `load_taxonomy` checks that its names agree.

    Attributes:
        templates: sentences, for either half of a pair.
        viewpoints: by name.
        lights: adverbials by setting.
        looks: of subjects, by kind.
        colours: more of them, where colours can be seen.
        manners: how an ordinary moment goes on, by kind.
        subjects: by name.
        locations: by name.
        reactions: clauses that fit most classes.
        classes: by name.
        banned: words that no description may hold.
    """

    templates: Phrases
    viewpoints: Annotated[dict[Words, Viewpoint], Field(min_length=1)]
    lights: dict[Words, Phrases]
    looks: dict[Kind, Phrases]
    colours: dict[Kind, Phrases]
    manners: dict[Kind, Phrases]
    subjects: Annotated[dict[Words, Subject], Field(min_length=1)]
    locations: Annotated[dict[Words, Location], Field(min_length=1)]
    reactions: Phrases
    classes: Annotated[dict[Words, AnomalyClass], Field(min_length=1)]
    banned: tuple[Words, ...]

    @property
    def sha256(self) -> str:
        """Of what it says, whatever its comments and layout."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def subjects_of(self, class_name: str, location: str) -> list[str]:
        """Names of the subjects that fit a class and come to a location, in the class's order."""
        there = self.locations[location].subjects
        return [name for name in self.classes[class_name].subjects if name in there]

    def ordinary_of(self, location: str, subject: str) -> Phrases:
        """What a subject may do in a location on any day."""
        one = self.subjects[subject]
        return one.ordinary or self.locations[location].ordinary[one.kind]

    def events_of(self, class_name: str, location: str, subject: str) -> list[Event]:
        """Events of a class that a subject can do there."""
        kind = self.subjects[subject].kind
        return [event for event in self.classes[class_name].events if event.fits(location, kind)]


def load_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy.

    Raises:
        TrainingError: no file, no YAML mapping, a value that does not fit, a name that is not
            defined, or elements that cannot be written together.
    """
    taxonomy = read_yaml(path, Taxonomy, "taxonomy")
    try:
        for template in taxonomy.templates:
            _check_template(template)
        for name, viewpoint in taxonomy.viewpoints.items():
            if viewpoint.lights is not None:
                _check_known(f"viewpoint {name!r}", "lights", [viewpoint.lights], taxonomy.lights)
        for name in taxonomy.locations:
            _check_location(taxonomy, name)
        for name in taxonomy.classes:
            _check_class(taxonomy, name)
    except TrainingError as error:
        raise TrainingError(f"taxonomy {path}: {error}") from None
    return taxonomy


def _check_known(who: str, what: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise TrainingError(f"{who} names unknown {what} {name!r}; known are {listed}")


def _check_template(template: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise TrainingError(f"template {template!r} has a stray brace ({error})") from None
    required = sorted(set(fields) - OPTIONAL_FIELDS)
    if required != sorted(TEMPLATE_FIELDS) or len(set(fields)) != len(fields):
        wanted = ", ".join(f"{{{name}}}" for name in sorted(TEMPLATE_FIELDS))
        raise TrainingError(
            f"template {template!r} must hold each of {wanted} once, beside them only {{is}} and "
            "{at}"
        )


def _check_location(taxonomy: Taxonomy, name: str) -> None:
    location, who = taxonomy.locations[name], f"location {name!r}"
    _check_known(who, "setting", [location.setting], taxonomy.lights)
    _check_known(who, "viewpoint", location.viewpoints, taxonomy.viewpoints)
    _check_known(who, "subject", location.subjects, taxonomy.subjects)
    for subject in location.subjects:
        kind, own = taxonomy.subjects[subject].kind, taxonomy.subjects[subject].ordinary
        for what, phrases in (
            (f"{who}: ordinary", location.ordinary if own is None else {kind: own}),
            ("looks", taxonomy.looks),
            ("colours", taxonomy.colours),
            ("manners", taxonomy.manners),
        ):
            if kind not in phrases:
                raise TrainingError(f"{what} lacks {kind!r}, which subject {subject!r} needs")


def _check_class(taxonomy: Taxonomy, name: str) -> None:
    one, who = taxonomy.classes[name], f"class {name!r}"
    _check_known(who, "location", one.locations, taxonomy.locations)
    _check_known(who, "subject", one.subjects, taxonomy.subjects)
    for event in one.events:
        _check_known(f"{who}, event {event.does!r},", "location", event.at, one.locations)
    for location in one.locations:
        subjects = taxonomy.subjects_of(name, location)
        if not subjects:
            raise TrainingError(f"{who}: none of its subjects comes to location {location!r}")
        for subject in subjects:
            if not taxonomy.events_of(name, location, subject):
                raise TrainingError(f"{who} has no event of subject {subject!r} at {location!r}")
