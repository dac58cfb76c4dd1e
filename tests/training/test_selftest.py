"""The self test: every answer is right, and a wrong one would be told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from training import selftest_cli
from training.cli import main
from training.selftest import CHECKS, Check, selftest


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return list(selftest())


@pytest.mark.long
def test_every_answer_is_right_for_another_seed_too() -> None:
    assert [check for check in selftest(1) if not check.passed] == []


@pytest.mark.long
def test_every_answer_is_right(checks: list[Check]) -> None:
    assert [check for check in checks if not check.passed] == []


@pytest.mark.long
def test_the_released_formula_loses_what_samples_own_weights_keep(checks: list[Check]) -> None:
    lost = {check.name.strip(): check.found for check in checks if check.unit == "AUC"}
    ours = lost["lambda 0, sample by sample: as real alone"]
    theirs = lost["lambda 0, released formula: not recovered"]
    assert theirs > 0.03 > abs(ours)


def test_the_table_is_one_object_for_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest_cli, "CHECKS", CHECKS[3:5])
    assert main(["selftest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [check["passed"] for check in found["checks"]] == [True] * 4


def test_a_wrong_answer_ends_with_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(seed: int) -> Iterator[Check]:
        yield Check("the answer", 41.0, 42.0, 42.0, "")

    monkeypatch.setattr(selftest_cli, "CHECKS", [wrong])
    assert main(["selftest"]) == 2
    out, err = capsys.readouterr()
    assert "WRONG" in out
    assert "1 of 1 answers are wrong: the answer" in err
