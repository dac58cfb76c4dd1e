"""The gates: what each lets through and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from training.clips import TrainingError
from training.describe.gates import Gate, Gates, Limits
from training.describe.inflect import Vocabulary, forms
from training.describe.near import NearDuplicates, shingles
from training.describe.pairs import Pair
from training.describe.taxonomy import SURVEILLANCE, load_taxonomy
from training.describe.tokens import estimated_tokens, exact_tokens

TAXONOMY = load_taxonomy(SURVEILLANCE)
CALM = "A pole camera shows a wide market square where some people stroll about."
WILD = "A pole camera shows a wide market square where two men trade punches."


def gate_of(anomalous: str, normal: str, limits: Limits | None = None) -> Gate | None:
    gates = Gates(TAXONOMY, limits or Limits(), estimated_tokens)
    found = gates.alone(Pair(anomalous, normal))
    return None if found is None else found.gate


def test_a_sound_pair_passes() -> None:
    assert gate_of(WILD, CALM) is None


@pytest.mark.parametrize(
    ("anomalous", "normal", "gate"),
    [
        (f"{WILD} Blood drips down.", CALM, Gate.BANNED),
        (WILD, f"{CALM} A NAKED man stands there.", Gate.BANNED),
        (WILD, f"{CALM} There is no fighting.", Gate.NAMED),
        (WILD, f"{CALM} Nobody is a robber.", Gate.NAMED),
        (WILD, f"{CALM} The tear-gas is far away.", Gate.NAMED),
        (WILD, WILD, Gate.NAMED),
        (f"{WILD} {WILD * 10}", CALM, Gate.LENGTH),
        (WILD, "People stroll about.", Gate.LENGTH),
    ],
)
def test_a_pair_that_is_not_sound_is_refused_by_its_gate(
    anomalous: str, normal: str, gate: Gate
) -> None:
    assert gate_of(anomalous, normal) is gate


@pytest.mark.parametrize("innocent", ["A robin sings.", "The firefighters' museum.", "Therapist."])
def test_words_count_only_whole(innocent: str) -> None:
    assert gate_of(WILD, f"{CALM} {innocent}") is None


@pytest.mark.parametrize(
    ("word", "inflected"),
    [
        ("fight", "fights fighting fighter"),
        ("rob", "robs robbed robbing robber"),
        ("collapse", "collapses collapsed collapsing"),
        ("injury", "injuries"),
        ("panic", "panics panicked panicking"),
        ("smash", "smashes smashed smashing"),
        ("kick", "kicks kicked kicking"),
        ("tear gas", "gases"),
    ],
)
def test_regular_forms_are_found(word: str, inflected: str) -> None:
    made = {form.split()[-1] for form in forms(word)}
    assert set(inflected.split()) <= made


@given(word=st.sampled_from([w for one in TAXONOMY.classes.values() for w in one.words]))
def test_every_word_of_the_taxonomy_is_found_in_a_text(word: str) -> None:
    assert Vocabulary([word]).found_in(f"It shows, {word.upper()}: so.") == word


def test_a_text_of_the_same_words_is_always_too_near() -> None:
    kept = NearDuplicates(0.99)
    kept.add(Pair(WILD, CALM))
    assert kept.nearest(Pair(WILD.upper(), "Something else altogether stands here.")) == 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from([0.5, 0.7, 0.9]))
def test_what_is_too_near_is_by_the_index_itself(seed: int, limit: float) -> None:
    words = [f"w{(seed * 31 + n * n) % 997}" for n in range(40)]
    other = words[: seed % 40] + [f"v{n}" for n in range(40 - seed % 40)]
    one, two = " ".join(words), " ".join(other)
    likeness = len(shingles(one) & shingles(two)) / len(shingles(one) | shingles(two))
    kept = NearDuplicates(limit)
    kept.add(Pair(one, one))
    found = kept.nearest(Pair(two, two))
    assert found is None or found == likeness > limit


def test_one_changed_phrase_is_too_near_and_two_are_not() -> None:
    gates = Gates(TAXONOMY, Limits(), estimated_tokens)
    text = (
        "A dome camera on the ceiling shows a railway platform with a waiting train. A tall man "
        "in a dark coat is looking for a seat near {}, while other people {} at the far end."
    )
    assert gates.beside_others(Pair(text.format("a window", "read"), WILD)) is None
    near = gates.beside_others(Pair(text.format("the doors", "read"), CALM))
    assert near is not None
    assert near.gate is Gate.NEAR
    other = text.replace("railway platform with a waiting train", "bank lobby in the evening")
    far = Pair(other.format("the doors", "stand and look about them"), CALM)
    assert gates.beside_others(far) is None


def tokenizer_in(folder: Path) -> Path:
    """A real one whose every letter is a token."""
    pieces = [(chr(code), -1.0) for code in range(32, 127)]
    made = Tokenizer(models.Unigram([("<unk>", 0.0), *pieces], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("inside", [".", "tokenizer"])
def test_a_tokenizer_on_disk_counts_exactly(inside: str, tmp_path: Path) -> None:
    tokenizer_in(tmp_path / inside)
    assert exact_tokens(tmp_path)("A man falls.") == len("Amanfalls.")


def test_a_folder_that_holds_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read as a tokenizer"):
        exact_tokens(tmp_path)
    with pytest.raises(TrainingError, match="is no folder"):
        exact_tokens(tmp_path / "gone")
