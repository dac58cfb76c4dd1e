"""A false-alarm budget the whole way: video in, a threshold out, kept and proposed anew."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path

import pytest

from server.calibration import Calibration, CalibrationAsk
from server.pushed import PushedFrame
from server.rpc.client import Client, ClientError, StreamChange
from server.streams import SourceUrl, StreamConfig
from tests.support.clips import grey_clip
from tests.support.pushing import START_MICROSECONDS, TINY, answers_of
from tests.support.serving import ServerProcess
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.watching import wait_for

pytestmark = pytest.mark.long

WINDOW = 16
FRAME_SECONDS = 0.1
DARK, BRIGHT = 20, 120
PEAKS = range(60, 240, 15)
"""Levels of twelve bursts."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").directory


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundles") / "other"
    return make_tiny_bundle(directory, threshold=0.6).directory


def serving(bundle: Path, store: Path) -> ServerProcess:
    return ServerProcess(
        bundle=bundle,
        store=store,
        ingest__workers=1,
        push__max_frames_per_second=1000,
        history__flush_seconds=0.1,
        history__check_seconds=0.2,
    )


def normal_levels() -> list[int]:
    """Grey levels of windows: a dark scene, and bursts of four windows."""
    return [level for peak in PEAKS for level in (*repeat(DARK, 46), *repeat(peak, 4))]


def frames(levels: Sequence[int], first_window: int = 0) -> Iterator[PushedFrame]:
    for index, level in enumerate(chain.from_iterable(repeat(level, WINDOW) for level in levels)):
        at = first_window * WINDOW + index
        yield PushedFrame(
            bytes([level]) * TINY.frame_bytes,
            START_MICROSECONDS + int(at * FRAME_SECONDS * 1e6),
            0.0,
        )


def push(client: Client, levels: Sequence[int], first_window: int = 0) -> None:
    answers = answers_of(client.push(frames(levels, first_window), TINY, "door"))
    assert sum(answer.score is not None for answer in answers) == len(levels)


def metric(server: ServerProcess, name: str) -> float | None:
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith(name)]
    return float(found[0].split()[1]) if found else None


def calibration_of(client: Client) -> Calibration:
    found = client.get("door").calibration
    assert found is not None
    return found


def test_a_threshold_learnt_from_the_past_holds_through_a_kill_and_its_bundles_absence(
    bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.db"
    # 960 s in which ten and a half events may be expected: nine, and the next one just below.
    ask = CalibrationAsk(950.0)
    with serving(bundle, store) as server:
        client = server.client()
        client.create(StreamConfig("door", SourceUrl("push://")))
        push(client, normal_levels())
        told = client.calibrate("door", ask)
        assert (told.events, told.applied) == (9, False)
        assert client.get("door").config.open_threshold is None
        assert client.get("door").calibration is None
        found = client.calibrate("door", CalibrationAsk(950.0, apply=True))
        assert found.open_threshold == told.open_threshold
        view = client.get("door")
        assert view.config.open_threshold == found.open_threshold
        assert calibration_of(client).applied
        server.kill()

    with serving(bundle, store) as server:
        client = server.client()
        assert client.get("door").config.open_threshold == found.open_threshold
        kept = calibration_of(client)
        assert (kept.applied, kept.events, kept.message) == (True, 9, found.message)
        assert client.calibrate("door", ask).events == 9
        # The same scene again opens the same alerts, live.
        push(client, normal_levels(), first_window=10_000)
        assert metric(server, 'gvvad_alerts_total{stream="door"}') == 9
        server.terminate()

    with serving(other_bundle, store) as server:
        client = server.client()
        assert client.get("door").config.open_threshold is None
        aged = calibration_of(client)
        assert not aged.applied
        assert "the bundle's holds; calibrate it again" in aged.proposal
        with pytest.raises(ClientError, match="too few to learn from") as caught:
            client.calibrate("door", ask)
        assert caught.value.code == "FAILED_PRECONDITION"
        server.terminate()
    proposals = [line for line in server.log if "calibrate it again" in line]
    assert len(proposals) == 1
    assert "stream door" in proposals[0]

    with serving(bundle, store) as server:
        client = server.client()
        assert client.get("door").config.open_threshold == found.open_threshold
        client.update("door", StreamChange(open_threshold=0.9))
        assert not calibration_of(client).applied
        client.delete("door")
        client.create(StreamConfig("door", SourceUrl("push://")))
        assert client.get("door").calibration is None
        with pytest.raises(ClientError, match=r"0\.0 minutes of scores in 0 windows"):
            client.calibrate("door", ask)


def test_drift_rises_when_the_scene_changes_and_is_proposed_once(
    bundle: Path, tmp_path: Path
) -> None:
    with serving(bundle, tmp_path / "store.db") as server:
        client = server.client()
        client.create(StreamConfig("door", SourceUrl("push://")))
        levels = [DARK + index % 7 for index in range(1100)]
        push(client, levels)
        client.calibrate("door", CalibrationAsk(950.0, apply=True))
        calm = wait_for(client, "door", lambda view: drift(view) is not None)
        assert calm.calibration.drift < 0.1
        assert calm.calibration.proposal == ""
        push(client, [BRIGHT + index % 7 for index in range(1100)], first_window=10_000)
        moved = wait_for(client, "door", lambda view: (drift(view) or 0) > 0.25)
        assert "the scores of the last day are not those" in moved.calibration.proposal
        assert moved.config.open_threshold == calm.config.open_threshold  # nothing by itself
        shown = metric(server, 'gvvad_stream_score_drift{stream="door"}')
        assert shown is not None
        assert shown > 0.25
        client.delete("door")
        assert metric(server, 'gvvad_stream_score_drift{stream="door"}') is None
        server.terminate()
    assert sum("population stability index" in line for line in server.log) == 1


def drift(view) -> float | None:
    return view.calibration.drift if view.calibration is not None else None


def calibrate(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", "calibrate", "door", "--server", server.address]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)


def test_clips_are_replayed_and_their_scores_judged_as_the_streams_own(
    bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    levels = list(chain.from_iterable(repeat(level, WINDOW) for level in normal_levels()))
    half = len(levels) // 2
    for name, part in (("a.mp4", levels[:half]), ("b.mp4", levels[half:])):
        grey_clip(clips / name, part, fps=10)
    anomalous = [[0, half]]
    (clips / "ground_truth.json").write_text(
        json.dumps({"a.mp4": {"frames": half, "fps": 10, "anomalous": []}})
    )
    with serving(bundle, tmp_path / "store.db") as server:
        server.client().create(StreamConfig("door", SourceUrl("push://")))
        given = ["--budget", "950/day", "--clips", str(clips), "--bundle", str(bundle)]
        done = calibrate(server, *given, "--out", str(out), "--apply", "--json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["events"], answer["applied"], answer["bundle"]) == (
            9,
            True,
            server.client().model().bundle_id,
        )
        assert answer["watched_seconds"] == pytest.approx(960, abs=2)
        picture = Path(answer["picture"])
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert [path.name for path in out.iterdir()] == ["calibration-door.png"]
        opens = server.client().get("door").config.open_threshold
        assert opens == answer["open_threshold"]

        plain = calibrate(server, *given)
        assert plain.stdout.startswith(f"door: {opens:.4f} opens 9 events in 0.3 hours")
        assert plain.stdout.endswith("nothing was changed; set the threshold with --apply\n")

        (clips / "ground_truth.json").write_text(
            json.dumps({"a.mp4": {"frames": half, "fps": 10, "anomalous": anomalous}})
        )
        refused = calibrate(server, *given)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "minutes of scores in 300 windows are too few" in refused.stderr

        wrong = calibrate(server, *given[:-1], str(other_bundle))
        assert wrong.returncode == 2
        assert "give the served one with --bundle" in wrong.stderr
