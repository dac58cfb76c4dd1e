"""The documented way from nothing to a detector that learned from generated video.

Everything is real and tiny: the grammar, an endpoint that speaks OpenAI's protocol, a CogVideoX
and a CLIP with weights by chance, clips that are rendered here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from server.ingest.video import decode_file, open_file
from tests.support.clip_model import write_clip_model
from tests.support.documented import documented
from tests.support.footage import make_footage
from tests.support.openai_endpoint import good, serving
from tests.support.tiny_cogvideox import tiny_backend, write_tiny_cogvideox
from tests.training.test_mil import write_recipe
from training.cli import main
from training.filter.findings import load_findings
from training.logs import read_curves
from training.manifest import Row, load_manifest

HEADING = "## From nothing to a detector that learned from generated video"


def run(*words: str) -> None:
    assert main([*words]) == 0, words


class Tiny:
    """README's commands with everything in small."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "gv"
        write_tiny_cogvideox(folder)
        model, weights = write_clip_model(folder)
        recipe = {"context": 8, "scaling": {"kind": "fixed", "value": 0.5}}
        self._places = {
            "CLIPS": make_footage(folder / "clips", sources=16),
            "cogvideox-2b": tiny_backend(folder, frames=17, steps=1),
            "ViT-L-14": model,
            "openai": weights,
            "600": 4,
            "lap-causal": write_recipe(folder / "recipe.yaml", **recipe),
        }

    def words(self, command: str) -> list[str]:
        program, *words = command.split()
        assert program == "gvvad-train"
        swapped = [str(self._places.get(word, word)) for word in words]
        return [word.replace("runs/gv", str(self.out)) for word in swapped]


def by_source(path: Path) -> tuple[list[Row], list[Row]]:
    rows = load_manifest(path).rows
    return [row for row in rows if row.synthetic], [row for row in rows if not row.synthetic]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_documented_commands_train_on_what_they_generated(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    describe, *rest = [tiny.words(command) for command in documented(HEADING)]
    assert [words[0] for words in rest] == [
        "generate", "extract", "filter", "extract", "train", "evaluate",
    ]  # fmt: skip

    run(*describe)
    descriptions, asked = tiny.out / "descriptions.jsonl", tiny.out / "asked.jsonl"
    with serving(good) as endpoint:
        more = ("--writer", "openai", "--model", "tiny", "--base-url", endpoint.base_url)
        run("describe", "--count", "2", "--seed", "2", "--out", str(asked), *more)
    descriptions.write_text(descriptions.read_text() + asked.read_text())

    for words in rest:
        run(*words)

    made, _ = by_source(tiny.out / "made" / "manifest.jsonl")
    assert [row.label for row in made] == ["anomalous", "normal"] * 3
    for row in made:
        path = tiny.out / "made" / str(row.video)
        with open_file(path) as container:
            assert len(list(decode_file(container, str(path)))) == row.frames == 17
        assert row.generation is not None

    found = load_findings(tiny.out / "kept" / "verdicts.json")
    assert {"prompt", "contrast", "motion"} <= set(found.rule.criteria)
    assert all(video.values["contrast"] is not None for video in found.videos)

    synthetic, real = by_source(tiny.out / "features" / "manifest.jsonl")
    assert [row.id for row in synthetic] == [row.id for row in made]
    assert 0 < sum(bool(row.kept) for row in synthetic) < 6
    assert len(real) == 32
    assert {row.split for row in real} == {None, "test"}
    assert {row.encoder for row in synthetic + real} == {real[0].encoder}

    curves = read_curves(tiny.out / "head")
    assert curves["lambda"][-1] == 0.5
    assert curves["lambda"][0] < 0.5  # it rises to its value
    assert "ROC AUC of frames" in (tiny.out / "report" / "report.md").read_text()
