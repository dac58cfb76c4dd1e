"""The bank's sentences: how many, how even, and what is refused."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from training.clips import TrainingError
from training.sentences import SURVEILLANCE, load_wording

UCF_CRIME = (
    "abuse arrest arson assault burglary explosion fighting road-accident robbery shooting "
    "shoplifting stealing vandalism"
)
XD_VIOLENCE = "abuse road-accident explosion fighting riot shooting"


def test_half_of_512_distinct_sentences_are_anomalous() -> None:
    wording = load_wording(SURVEILLANCE)
    assert len({sentence.text for sentence in wording.sentences}) == 512
    assert sum(sentence.anomalous for sentence in wording.sentences) == 256
    assert (len(wording.anomaly_prompts), len(wording.normal_prompts)) == (30, 30)


def test_every_class_of_both_datasets_has_sentences() -> None:
    kinds = {s.kind.replace(" ", "-") for s in load_wording(SURVEILLANCE).sentences if s.anomalous}
    assert set(UCF_CRIME.split()) | set(XD_VIOLENCE.split()) <= kinds


def test_a_viewpoint_tells_nothing_of_the_label() -> None:
    halves: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for sentence in load_wording(SURVEILLANCE).sentences:
        halves[sentence.anomalous][sentence.text.split(",")[0]] += 1
    assert halves[True] == halves[False]


def test_sentences_are_whole_and_fit_clip_s_text_encoder() -> None:
    for text in load_wording(SURVEILLANCE).texts:
        assert re.fullmatch(r"[A-Z][^.{}]*\.", text)
        assert len(text.split()) <= 40  # CLIP reads 77 tokens, templates included


def spoiled(tmp_path: Path, **changes: object) -> str:
    content = yaml.safe_load(SURVEILLANCE.read_text()) | changes
    path = tmp_path / "sentences.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(TrainingError) as caught:
        load_wording(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"templates": ["no place"]}, "templates.0"),
        ({"normal_prompts": ["One.", "One."]}, "'One.' appears twice"),
        ({"anomaly_prompts": []}, "anomaly_prompts"),
        ({"normal": []}, "normal"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    assert said in spoiled(tmp_path, **changes)
