"""A run that is killed anywhere loses at most the video in work."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.generating import Run
from tests.training.generate.conftest import Write, arguments, decoded, files
from training.cli import main
from training.generate.film import read_film
from training.manifest import load_manifest

KILLS = 20
RUNS = 2
VIDEOS = 40
GIVEN_UP_SECONDS = 100


def made(run: Run, out: Path, count: int) -> float:
    """Seconds until so many videos are there."""
    began = time.monotonic()
    while len(videos(out)) < count:
        assert run.runs_after(0.002), "the run ended early"
        assert time.monotonic() < began + GIVEN_UP_SECONDS, "the run does not get on"
    return time.monotonic() - began


def videos(out: Path) -> list[Path]:
    return sorted((out / "videos").glob("*.mp4"))


def assert_nothing_is_broken(out: Path) -> None:
    """Every file under a final name is whole."""
    for path in videos(out):
        assert len(decoded(path)) == read_film(path).frames == 9
    if (out / "manifest.jsonl").exists():
        manifest = load_manifest(out / "manifest.jsonl")
        for row in manifest.rows:
            assert read_film(manifest.file(str(row.video))).sha256 == row.video_sha256


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_was(
    descriptions: Write, cogvideox: Path, three: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = arguments(descriptions(3), cogvideox, out)
    run = Run(given)
    made(run, out, 1)
    run.kill()
    assert_nothing_is_broken(out)
    assert main(given) == 0
    assert files(out) == files(three)
    assert (out / "manifest.jsonl").read_bytes() == (three / "manifest.jsonl").read_bytes()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_twenty_kills_leave_what_an_undisturbed_run_leaves(
    descriptions: Write, cogvideox: Path, tmp_path: Path
) -> None:
    """Kills by chance: a quarter while it starts, the others while it makes or writes videos.

    Those come up to 0.3 s after the first new video stands under its name; a video takes half
    of that here, so that every phase of one is met. Two runs are killed side by side.
    """
    rows = descriptions(VIDEOS)
    undisturbed = tmp_path / "undisturbed"
    run = Run(arguments(rows, cogvideox, undisturbed))
    first_seconds = made(run, undisturbed, 1)
    assert run.exit_code(GIVEN_UP_SECONDS) == 0

    def killed(seed: int) -> Path:
        out, chance = tmp_path / f"killed-{seed}", random.Random(seed)
        given = arguments(rows, cogvideox, out)
        for number in range(KILLS // RUNS):
            before, run = len(videos(out)), Run(given)
            if number % 4 == 0:
                run.runs_after(chance.uniform(0, first_seconds))
            else:
                made(run, out, before + 1)
                run.runs_after(chance.uniform(0, 0.3))
            run.kill()
            assert_nothing_is_broken(out)
            assert len(videos(out)) >= before
        assert Run(given).exit_code(GIVEN_UP_SECONDS) == 0
        return out

    with ThreadPoolExecutor(RUNS) as pool:
        outs = list(pool.map(killed, range(RUNS)))
    for out in outs:
        assert files(out) == files(undisturbed)
        manifests = [folder / "manifest.jsonl" for folder in (out, undisturbed)]
        assert manifests[0].read_bytes() == manifests[1].read_bytes()
