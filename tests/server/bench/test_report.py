"""The findings as lines, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from server.bench.findings import Findings, NaiveRound, mixed
from server.bench.kinds import camera_kind
from server.bench.line import line_through
from server.bench.machine import this_machine
from server.bench.naive import NaiveFigures
from server.bench.picture import draw
from server.bench.report import as_json, head_lines, lines, trial_lines
from tests.support.bench_runs import MODEL, a_round, a_run, a_trial, some_findings

NAIVE = NaiveFigures(
    *(8, 20.0, 100, 5.0, 0.1, 0.2, 0.3, 0.6, 0.9, 1.0, 0, 0, 120e6, 1.9),
)


def row(found: Findings, name: str) -> str:
    [line] = [one for one in lines(found) if one.startswith(f"  {name} ")]
    return line.removeprefix(f"  {name}").strip()


def test_a_person_reads_the_answer_and_what_stops_the_next_camera() -> None:
    found = some_findings(24)
    held = "24 with p99 under 1 s and nothing dropped; held in 3 of 3 rounds"
    assert row(found, "cameras") == held
    assert row(found, "ceiling") == "31.0 cameras: 77% of it held (goal 23: reached)"
    stopped = "p99 latency 1.40 s, not under 1 s; windows dropped (3 overload)"
    assert row(found, "next stopped by") == f"{stopped} (at 25 cameras, with 1.6 of 2 cores busy)"


def test_latency_is_the_median_of_the_rounds() -> None:
    told = "p50 0.075 s, p95 0.150 s, p99 0.300 s, max 0.330 s with 24 cameras (median of 3 rounds)"
    assert row(some_findings(), "latency") == told


def test_a_missed_goal_is_called_missed() -> None:
    assert "(goal 23: missed)" in row(some_findings(20), "ceiling")


def test_a_share_of_each_rounds_ceiling_is_held_where_most_rounds_held_it() -> None:
    found = some_findings()
    found.ramp, found.by_share = None, True
    found.rounds = [a_round(24, 32.0), a_round(22, 30.0), a_round(23, 31.0)]
    told = "\n".join(lines(found))
    assert "cameras          22, 23, 24, as asked for; held in 3 of 3 rounds" in told
    assert "31.0 cameras: 74% of it held (goal 23: reached)" in told
    assert "with 22 to 24 cameras (median of 3 rounds)" in told
    found.rounds[1] = a_round(22, 30.0, p99_seconds=1.2)
    assert "31.0 cameras: 74% of it held (goal 23: reached)" in "\n".join(lines(found))
    found.by_share = False  # a number that was asked for holds where every round held it
    assert "0% of it held (goal 23: missed)" in "\n".join(lines(found))
    found.by_share, found.rounds[2] = True, a_round(23, 31.0, p99_seconds=1.2)
    assert "0% of it held (goal 23: missed)" in "\n".join(lines(found))


def test_of_a_share_those_that_were_refused_are_not_held_but_the_others_are() -> None:
    found = some_findings()
    found.ramp, found.by_share = None, True
    told_off = {"refused": 3, "refusal": "no room"}
    late = a_run(23, p99_seconds=1.2, **told_off)
    for run, held in ((a_run(24, **told_off), 21), (late, 0)):
        found.rounds[0] = replace(found.rounds[0], trial=a_trial(run))
        assert found.rounds[0].trial.held == held
    found.rounds[1] = replace(found.rounds[1], trial=a_trial(a_run(24, **told_off)))
    assert row(found, "cameras") == (
        "23, 24, as asked for; held in 1 of 3 rounds; held without those refused: 0, 21, 24"
    )
    assert row(found, "ceiling") == "31.0 cameras: 68% of it held (goal 23: missed)"


def test_memory_twice_and_soak_have_a_line_each() -> None:
    found = some_findings(24)
    assert row(found, "memory").endswith("+15.00 ± 0.00 MB a further camera")
    assert row(found, "twice as many") == "48: 24 refused, p99 0.400 s of the rest, nothing dropped"
    assert row(found, "for long") == "5.0 minutes: memory +0.00 ± 0.00 MB an hour, 0 dropped"


def test_the_naive_program_stands_beside_the_server() -> None:
    found = some_findings()
    found.naive_lacking, found.naive_cameras = "", 8
    beside = NaiveRound(NAIVE, NAIVE, a_run(8, 0.2))
    found.rounds = [replace(one, naive=beside) for one in found.rounds]
    told = row(found, "naive program")
    assert told.startswith("5.0 windows a second of recorded clips: the server has 6.4 times")
    assert told.endswith(
        "at the 8 cameras that it keeps up with p95 0.900 s, the server's 0.100 s, 9.0 times lower"
    )


def test_a_machine_that_others_use_too_is_told_of() -> None:
    found = some_findings()
    assert not [line for line in lines(found) if "other programs" in line]
    busy = a_trial(a_run(24, others_cores=0.7))
    found.rounds = [replace(one, trial=busy) for one in found.rounds]
    assert row(found, "other programs").startswith("had 0.70 cores in the meantime")


def test_what_was_not_measured_has_no_line() -> None:
    found = Findings((camera_kind("768x432"),), 1.0, cores=2)
    found.trials = [a_trial(a_run(5))]
    told = list(lines(found))
    assert [line.split()[0] for line in told] == ["768x432@25", "cameras"]
    assert len(list(trial_lines(found))) == 2
    assert next(iter(head_lines(this_machine(), None))).startswith("gvvad bench on ")


def test_json_holds_everything_and_is_json() -> None:
    content = as_json(this_machine(), {"ingest.workers": "4"}, [some_findings(24)], True)
    told = json.loads(json.dumps(content))
    assert told["model"]["bundle_id"] == MODEL.bundle_id
    assert told["settings"] == {"ingest.workers": "4"}
    assert told["machine"]["packages"]["av"]
    [bench] = told["benches"]
    assert (bench["held"], bench["goal"], bench["exact"]) == (24, 23, True)
    assert [one["holds"] for one in bench["trials"]] == [True, False]
    assert bench["rounds"][0]["load"]["windows_per_second"] == 15.0
    assert bench["memory"]["bytes_per_camera"]["slope"] == pytest.approx(15e6)


@pytest.mark.parametrize("mixes", [1, 2])
def test_the_picture_marks_the_bound_the_answer_and_the_ceiling(mixes: int, tmp_path: Path) -> None:
    draw(tmp_path / "bench.png", [some_findings()] * mixes)
    pixels = np.asarray(Image.open(tmp_path / "bench.png").convert("RGB")).reshape(-1, 3)
    shown = {tuple(int(part) for part in pixel) for pixel in np.unique(pixels, axis=0)}
    assert {(0xC8, 0x37, 0x2D), (0x2F, 0x7D, 0x5B), (0x77, 0x77, 0x77)} <= shown
    assert [path.name for path in tmp_path.iterdir()] == ["bench.png"]


def test_the_picture_is_svg_where_asked(tmp_path: Path) -> None:
    draw(tmp_path / "bench.svg", [some_findings()])
    assert "<svg" in (tmp_path / "bench.svg").read_text()


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=5))
def test_a_mix_holds_what_its_costs_add_up_to(ceilings: list[float]) -> None:
    cores_of_each = [1 / one for one in ceilings]
    assert mixed(ceilings) == pytest.approx(len(ceilings) / sum(cores_of_each))


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=20, unique=True),
    st.floats(-100, 100),
    st.floats(-100, 100),
)
def test_a_line_is_found_through_points_on_it(x: list[int], slope: float, start: float) -> None:
    line = line_through(x, [start + slope * one for one in x])
    assert line is not None
    assert line.slope == pytest.approx(slope, abs=1e-6)
    assert line.start == pytest.approx(start, abs=1e-5)
    assert line.slope_error == pytest.approx(0, abs=1e-6)


def test_no_line_goes_through_one_place() -> None:
    assert line_through([3, 3], [1, 2]) is None
