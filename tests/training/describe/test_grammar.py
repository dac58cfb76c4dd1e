"""What the grammar writes: whole English sentences, always the same, hardly ever alike."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from training.clip import open_clip_module
from training.describe.describe import Described, Order, describe
from training.describe.gates import Gates, Limits
from training.describe.grammar import GrammarWriter
from training.describe.near import shingles
from training.describe.sampling import samples
from training.describe.taxonomy import SURVEILLANCE, load_taxonomy
from training.describe.tokens import estimated_tokens

TAXONOMY = load_taxonomy(SURVEILLANCE)
CLIP_READS = 77


def described(count: int, seed: int) -> Described:
    gates = Gates(TAXONOMY, Limits(), estimated_tokens)
    writer = GrammarWriter(TAXONOMY, seed)
    return describe(TAXONOMY, Order(count, seed), writer, gates, lambda: None)


@pytest.fixture(scope="module")
def thousands() -> Described:
    return described(4000, 3)


@pytest.fixture(scope="module")
def texts(thousands: Described) -> list[str]:
    return [row.description or "" for row in thousands.rows]


def test_thousands_of_sentences_are_distinct_and_few_are_refused(
    thousands: Described, texts: list[str]
) -> None:
    assert len(set(texts)) == 4000
    assert len({row.pair_id for row in thousands.rows}) == 2000
    assert len({row.seed for row in thousands.rows}) == 4000
    assert sum(thousands.rejected.values()) < 50


def test_a_longer_order_begins_with_the_shorter_one(thousands: Described) -> None:
    assert described(600, 3).rows == thousands.rows[:600]
    assert described(600, 4).rows != thousands.rows[:600]


def test_sentences_are_whole_and_of_a_length_to_film(texts: list[str]) -> None:
    sentence = r"[A-Z][^.{}]*\.( [A-Z][^.{}]*\.)*"
    assert [text for text in texts if not re.fullmatch(sentence, text)] == []
    assert [text for text in texts if not 25 <= len(text.split()) <= 60] == []
    assert [text for text in texts if re.search(r" ,|,,|  |\ba [aeiou]|\ban [^aeiou]", text)] == []


def test_clip_reads_every_description_to_its_end_and_the_estimate_is_above_its_count(
    texts: list[str],
) -> None:
    some = texts[:600]
    tokens = open_clip_module().get_tokenizer("ViT-B-32")(some, context_length=200)
    counts = [int(row.count_nonzero()) for row in tokens]
    assert max(counts) <= CLIP_READS
    for text, count in zip(some, counts, strict=True):
        assert count <= estimated_tokens(text) <= 226


def test_both_halves_show_the_same_scene(thousands: Described) -> None:
    for anomalous, normal in islice(zip(*[iter(thousands.rows)] * 2, strict=True), 500):
        assert (anomalous.label, normal.label) == ("anomalous", "normal")
        shared = shingles(anomalous.description or "") & shingles(normal.description or "")
        assert len(shared) >= 8
        elements = ("viewpoint", "location", "subject", "event", "pair_id", "group")
        assert (
            len({tuple(getattr(row, name) for name in elements) for row in (anomalous, normal)})
            == 1
        )


def test_the_form_of_a_sentence_tells_no_label(thousands: Described) -> None:
    openings: dict[str, Counter[str]] = {"anomalous": Counter(), "normal": Counter()}
    for row in thousands.rows:
        openings[row.label][" ".join((row.description or "").split()[:3])] += 1
    assert openings["anomalous"] == openings["normal"]


def test_infrared_shows_no_colours() -> None:
    writer = GrammarWriter(TAXONOMY, 1)
    dark = [s for s in islice(samples(TAXONOMY, 1), 600) if s.viewpoint == "night infrared"]
    looks = [look for some in TAXONOMY.colours.values() for look in some]
    assert len(dark) > 20
    assert not any(look in writer.write(s, 0).anomalous for s in dark for look in looks)


@pytest.mark.long
def test_tens_of_thousands_can_be_had() -> None:
    found = described(30_000, 1)
    assert len({row.description for row in found.rows}) == 30_000
