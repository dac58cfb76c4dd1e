"""Small datasets in the layouts in which large ones are published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.importers.datasets import LAYOUTS
from training.importers.layouts import import_lists
from training.importers.lists import ListFile
from training.importers.options import ImportOptions
from training.manifest import Row

WIDTH = 8
ELSEWHERE = "/mnt/disk/save"
"""Published lists name folders of their authors' machines."""

Array = npt.NDArray[np.float32]


def some_features(*shape: int, seed: int = 0) -> Array:
    """Chance numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset below a folder: lists, features and annotations of its own."""

    folder: Path
    name: str

    @property
    def features(self) -> Path:
        """Of the feature files."""
        return self.folder / "features"

    def write_features(self, file: str, array: Array) -> None:
        """One file below the feature folder."""
        path = self.features / file
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)

    def write_list(self, name: str, lines: Iterable[str]) -> Path:
        """A list, or a file of annotations."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def options(self, **more: object) -> ImportOptions:
        """Where its features are, and what else is given."""
        given: dict[str, object] = {"output": self.folder, "features": self.features}
        return ImportOptions(**(given | more))  # type: ignore[arg-type]

    def rows(self, *lists: ListFile, **more: object) -> dict[str, Row]:
        """What is imported, by id."""
        rows = import_lists(LAYOUTS[self.name], lists, self.options(**more))
        return {row.id: row for row in rows}

    def listed(self, names: Iterable[str], *shape: int, **more: object) -> dict[str, Row]:
        """What is imported of a test list of feature files, which are written."""
        names = list(names)
        for seed, name in enumerate(names):
            self.write_features(name, some_features(*(shape or (4, WIDTH)), seed=seed))
        path = self.write_list("test.list", [f"{ELSEWHERE}/{name}" for name in names])
        return self.rows(ListFile(path, "test"), **more)
