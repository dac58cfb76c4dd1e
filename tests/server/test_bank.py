"""A bundle's sentences, from its graph to what people and programs are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.alert_records import AlertRecord
from server.alerts import AlertPolicy
from server.bank import BankError, NearSentence, read_sentences
from server.bundle import Bundle, BundleError, load_bundle
from server.engine.onnxruntime import EngineError, EngineOptions, OnnxDetector
from server.replay import replay
from server.rpc.alert_messages import alert_message, alert_record
from server.rpc.mapping import score_message, window_score
from server.terminal import alert_json, alert_line, score_json, score_line
from tests.support.backend import MODEL, a_score, an_alert
from tests.support.clips import write_clip
from tests.support.tiny_bundle import COLOURS, make_tiny_bundle

LIKE_RED = (NearSentence("red", True, 0.75), NearSentence("blue", False, 0.25))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("bank") / "bundle", sentences=COLOURS)


def detector(bundle: Bundle) -> OnnxDetector:
    return OnnxDetector(bundle, EngineOptions(threads=1))


def test_a_head_names_the_nearest_sentences_of_every_stream(bundle: Bundle) -> None:
    engine = detector(bundle)
    features = np.array([[0.75, 0, 0.25], [0, 0.5, 0.25]], np.float32)
    state = {"trail": np.zeros((2, 1), np.float32)}
    assert engine.step(features, state).explanations == [
        LIKE_RED,
        (NearSentence("green", False, 0.5), NearSentence("blue", False, 0.25)),
    ]


def test_an_alert_is_told_by_its_peak(bundle: Bundle, tmp_path: Path) -> None:
    frames = [np.full((24, 32, 3), (200, 40, 90), np.uint8)] * 32
    frames += [np.full((24, 32, 3), (250, 240, 90), np.uint8)] * 32
    clip = write_clip(tmp_path / "clip.mp4", frames, fps=10)
    policy = AlertPolicy(0.1, 0.05, 0.0)
    [found] = replay([clip], bundle, detector(bundle), policy)
    [raised] = found.alerts
    assert raised.last_sequence > raised.first_sequence
    assert [near.text for near in raised.explanation] == ["red", "green"]


def test_a_bundle_without_sentences_says_nothing_of_them(tmp_path: Path) -> None:
    plain = make_tiny_bundle(tmp_path / "bundle")
    assert plain.sentences is None
    assert "bank" not in json.loads((plain.directory / "bundle.json").read_text())
    step = detector(plain).step(np.zeros((1, 3), np.float32), {"trail": np.zeros((1, 1), "f4")})
    assert step.explanations == [()]


def test_explanations_go_over_the_wire_and_back() -> None:
    score = replace(a_score("door", 1), explanation=LIKE_RED)
    assert window_score(score_message(score, MODEL.bundle_id)).explanation == LIKE_RED
    raised = replace(an_alert("door"), explanation=LIKE_RED)
    sent = alert_record(alert_message(AlertRecord(raised)))
    assert sent.alert.explanation == LIKE_RED


def test_people_and_programs_are_told() -> None:
    score = replace(a_score("door", 1), explanation=LIKE_RED)
    assert score_line(score, 0).endswith('latency 0.125 s like "red" (75 %)')
    told = [
        {"text": "red", "anomalous": True, "weight": 0.75},
        {"text": "blue", "anomalous": False, "weight": 0.25},
    ]
    assert score_json(score, 0)["explanation"] == told
    raised = replace(an_alert("door"), explanation=LIKE_RED)
    assert alert_line(raised, 0).endswith('like "red" (75 %)')
    assert alert_json(raised, 0)["explanation"] == told


def test_another_bank_than_the_head_s_is_refused(tmp_path: Path) -> None:
    other = replace(COLOURS, sha256="d" * 64)
    with pytest.raises(BundleError, match=r"bank dddddddddddd\.\.\., the head was trained on cccc"):
        make_tiny_bundle(tmp_path / "bundle", sentences=other)


def test_too_few_sentences_are_refused(tmp_path: Path) -> None:
    few = replace(COLOURS, texts=("red",), anomalous=(True,))
    with pytest.raises(BundleError, match="holds 1 sentences, the head names 2 of them"):
        make_tiny_bundle(tmp_path / "bundle", sentences=few)


def test_a_sentence_that_is_not_there_is_no_explanation(tmp_path: Path) -> None:
    few = replace(COLOURS, texts=("red", "green"), anomalous=(True, False))
    engine = detector(make_tiny_bundle(tmp_path / "bundle", sentences=few))
    with pytest.raises(EngineError, match=r"names sentences \[2 0\].*expected 0 to 1"):
        engine.step(np.array([[0.25, 0, 0.5]], "f4"), {"trail": np.zeros((1, 1), "f4")})


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_sentences_that_are_gone_or_changed_are_refused(tmp_path: Path, harm: str) -> None:
    directory = make_tiny_bundle(tmp_path / "bundle", sentences=COLOURS).directory
    file = directory / "bank.json"
    if harm == "gone":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("green", "grey"))
    expected = "lacks bank.json" if harm == "gone" else "bank.json does not match its manifest"
    with pytest.raises(BundleError, match=expected):
        load_bundle(directory)


def test_a_graph_that_names_nothing_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    plain = make_tiny_bundle(tmp_path / "bundle")
    manifest = bundle.manifest.model_copy(update={"head": plain.manifest.head})
    mixed = replace(bundle, directory=plain.directory, manifest=manifest)
    with pytest.raises(BundleError, match=r"lacks output explanation_index int64 \(\*, 2\)"):
        detector(mixed)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"schema": 2}',
        '{"schema": 1, "sha256": "a", "model": "b", "sentences": [{"text": 1, "anomalous": true}]}',
        '{"schema": 1, "sha256": "a", "model": "b", "sentences": 5}',
    ],
)
def test_what_is_no_bank_gets_a_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bank.json"
    path.write_text(content)
    with pytest.raises(BankError, match=r"bank\.json (is no bank|has a schema)"):
        read_sentences(path)
