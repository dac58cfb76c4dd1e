"""The ten lines of training/README.md do what stands there."""

from __future__ import annotations

import doctest
from pathlib import Path

from tests.support.featured import make_features

README = Path(__file__).parents[2] / "training" / "README.md"


def test_the_readme_s_lines_run_as_they_stand(tmp_path: Path) -> None:
    given = {
        "manifest": make_features(tmp_path / "features", videos=40),
        "folder": tmp_path / "run",
    }
    failed, tried = doctest.testfile(str(README), module_relative=False, globs=given)
    assert (failed, tried) == (0, 6)
