"""The taxonomy: what it covers, that all of it fits together, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.taxonomies import small_content, write_small
from training.clips import TrainingError
from training.describe.inflect import Vocabulary
from training.describe.sampling import samples
from training.describe.taxonomy import SURVEILLANCE, load_taxonomy

TAXONOMY = load_taxonomy(SURVEILLANCE)

UCF_CRIME = (
    "Abuse Arrest Arson Assault Burglary Explosion Fighting RoadAccidents Robbery Shooting "
    "Shoplifting Stealing Vandalism"
)
XD_VIOLENCE = "Abuse CarAccident Explosion Fighting Riot Shooting"


@pytest.mark.parametrize(
    ("data", "titles"), [("ucf-crime", UCF_CRIME), ("xd-violence", XD_VIOLENCE)]
)
def test_every_published_class_is_covered_once(data: str, titles: str) -> None:
    named = [title for one in TAXONOMY.classes.values() for title in one.names.get(data, ())]
    assert sorted(named) == titles.split()


def test_nothing_ordinary_or_shared_names_an_anomaly_or_is_banned() -> None:
    words = [word for one in TAXONOMY.classes.values() for word in one.words]
    phrases = [*TAXONOMY.templates]
    for group in (TAXONOMY.lights, TAXONOMY.looks, TAXONOMY.colours, TAXONOMY.manners):
        phrases += [phrase for some in group.values() for phrase in some]
    phrases += [view for one in TAXONOMY.viewpoints.values() for view in one.views]
    for subject in TAXONOMY.subjects.values():
        phrases += [*subject.phrases, *(subject.looks or ()), *(subject.ordinary or ())]
    for place in TAXONOMY.locations.values():
        phrases += [*place.scenes, *place.others, *place.calm]
        phrases += [phrase for some in place.ordinary.values() for phrase in some]
    vocabulary = Vocabulary([*words, *TAXONOMY.banned])
    assert [phrase for phrase in phrases if vocabulary.found_in(phrase) is not None] == []


def test_no_event_is_banned_and_each_class_s_words_name_most_of_its_events() -> None:
    banned = Vocabulary(TAXONOMY.banned)
    for one in TAXONOMY.classes.values():
        assert not any(banned.found_in(event.does) for event in one.events)
    events = [event.does for one in TAXONOMY.classes.values() for event in one.events]
    words = Vocabulary([word for one in TAXONOMY.classes.values() for word in one.words])
    assert sum(words.found_in(does) is not None for does in events) >= 0.5 * len(events)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40), count=st.integers(1, 60), more=st.integers(1, 60))
def test_more_draws_begin_with_the_fewer(seed: int, count: int, more: int) -> None:
    few = list(islice(samples(TAXONOMY, seed), count))
    assert list(islice(samples(TAXONOMY, seed), count + more))[:count] == few


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_whatever_is_drawn_together_fits_together(seed: int) -> None:
    for sample in islice(samples(TAXONOMY, seed), 100):
        one, place = TAXONOMY.classes[sample.class_name], TAXONOMY.locations[sample.location]
        assert sample.location in one.locations
        assert sample.viewpoint in place.viewpoints
        assert sample.subject in set(one.subjects) & set(place.subjects)
        assert sample.event.fits(sample.location, TAXONOMY.subjects[sample.subject].kind)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**40), count=st.integers(100, 400))
def test_every_class_comes_as_often_as_its_weight_has_it(seed: int, count: int) -> None:
    drawn = Counter(sample.class_name for sample in islice(samples(TAXONOMY, seed), count))
    weight = sum(one.weight for one in TAXONOMY.classes.values())
    for name, one in TAXONOMY.classes.items():
        assert abs(drawn[name] - count * one.weight / weight) < 2


def test_three_hundred_pairs_leave_no_element_and_no_event_out() -> None:
    drawn = list(islice(samples(TAXONOMY, 0), 300))
    assert {sample.viewpoint for sample in drawn} == set(TAXONOMY.viewpoints)
    assert {sample.location for sample in drawn} == set(TAXONOMY.locations)
    assert {sample.subject for sample in drawn} == set(TAXONOMY.subjects)
    events = {(name, e.does) for name, one in TAXONOMY.classes.items() for e in one.events}
    assert {(sample.class_name, sample.event.does) for sample in drawn} == events


def test_comments_and_layout_do_not_change_the_hash(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.yaml")
    before = load_taxonomy(path).sha256
    path.write_text("# more\n" + path.read_text())
    assert load_taxonomy(path).sha256 == before
    content = small_content()
    content["classes"]["riot"]["weight"] = 2
    path.write_text(yaml.safe_dump(content))
    assert load_taxonomy(path).sha256 != before


def spoil(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            spoil("classes", "riot", "locations", to=["moon"]),
            "class 'riot' names unknown location 'moon'; known are car park, public square, ",
        ),
        (spoil("classes", "riot", "subjects", to=["cat"]), "names unknown subject 'cat'; known"),
        (spoil("locations", "car park", "viewpoints", to=["drone"]), "unknown viewpoint 'drone'"),
        (spoil("locations", "car park", "subjects", to=["cat"]), "unknown subject 'cat'"),
        (spoil("locations", "car park", "setting", to="space"), "unknown setting 'space'"),
        (spoil("viewpoints", "bus", "lights", to="space"), "names unknown lights 'space'"),
        (spoil("classes", "riot", "events", 0, "at", to=["bar"]), "unknown location 'bar'"),
        (spoil("classes", "riot", "colour", to="red"), "classes.riot.colour: Extra inputs"),
        (spoil("classes", "riot", "weight", to=0), "classes.riot.weight"),
        (spoil("classes", to={}), "classes: "),
        (spoil("locations", "car park", "at", to=True), "locations.car park.at: "),
        (spoil("templates", 0, to="{view} shows {scene}."), "must hold each of {around}, "),
        (spoil("templates", 0, to="{view"), "has a stray brace"),
        (
            spoil("subjects", "crowd", "kind", to="vehicle"),
            "ordinary lacks 'vehicle', which subject 'crowd' needs",
        ),
        (
            spoil("classes", "riot", "subjects", to=["carer"]),
            "class 'riot': none of its subjects comes to location",
        ),
        (
            spoil(
                "classes",
                "riot",
                "events",
                to=[{"does": "x", "courses": ["y"], "kinds": ["vehicle"]}],
            ),
            "class 'riot' has no event of subject",
        ),
    ],
)
def test_a_taxonomy_that_does_not_fit_together_is_refused(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    content = small_content()
    change(content)
    path = tmp_path / "spoiled.yaml"
    path.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
    with pytest.raises(TrainingError) as caught:
        load_taxonomy(path)
    assert str(caught.value).startswith(f"taxonomy {path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
