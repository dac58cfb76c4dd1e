"""The documented way from a folder of clips to a served bundle, on clips rendered here."""

from __future__ import annotations

from pathlib import Path

import pytest

import export.cli
import training.cli
from server.bundle import load_bundle
from server.sender import VideoSource
from tests.support.documented import documented
from tests.support.footage import make_footage
from tests.support.pushing import answers_of
from tests.support.serving import ServerProcess

PROGRAMS = {"gvvad-train": training.cli.main, "gvvad-export": export.cli.main}
HEADING = "## From a folder of clips to a served bundle"


def test_six_commands_at_most_lead_to_a_served_bundle() -> None:
    commands = documented(HEADING)
    assert len(commands) <= 6
    assert commands[-1] == "gvvad serve --set bundle=runs/mine/bundle"


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_documented_commands_serve_a_detector_that_tells_the_clips_apart(
    tmp_path: Path,
) -> None:
    clips, mine = make_footage(tmp_path / "clips", sources=16), tmp_path / "mine"
    for command in documented(HEADING)[:-1]:
        program, *words = command.replace("CLIPS", str(clips)).split()
        words = [word.replace("runs/mine", str(mine)) for word in words]
        assert PROGRAMS[program](words) == 0, command
    assert "ROC AUC of frames" in (mine / "report" / "report.md").read_text()
    bundle = load_bundle(mine / "bundle")
    with ServerProcess(bundle=mine / "bundle") as server, server.client() as client:
        assert client.model().bundle_id == bundle.bundle_id
        peaks = {}
        for kind in ("calm", "wild"):
            source = VideoSource(str(clips / "scenes" / f"{kind}3.mp4"))
            answers = answers_of(client.push(source.frames(), source.push))
            scored = [answer.score for answer in answers if answer.score is not None]
            peaks[kind] = max(one.score for one in scored if one.score is not None)
    assert peaks["wild"] > peaks["calm"]
