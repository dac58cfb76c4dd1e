"""A taxonomy cut down to a few classes and locations, quick to read and to draw."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from training.describe.taxonomy import SURVEILLANCE

CLASSES = ("assault", "fighting", "robbery", "riot")
LOCATIONS = ("car park", "restaurant", "public square", "residential street", "ticket hall")


def small_content() -> dict[str, Any]:
    """The file's content, to spoil."""
    content: dict[str, Any] = yaml.load(SURVEILLANCE.read_text(), yaml.CSafeLoader)
    content["locations"] = {name: content["locations"][name] for name in LOCATIONS}
    content["classes"] = {name: content["classes"][name] for name in CLASSES}
    for one in content["classes"].values():
        one["locations"] = [name for name in one["locations"] if name in LOCATIONS]
        for event in one["events"]:
            if "at" in event:
                event["at"] = [name for name in event["at"] if name in LOCATIONS]
        one["events"] = [event for event in one["events"] if event.get("at") != []]
    return content


@cache
def _small() -> str:
    return yaml.dump(small_content(), Dumper=yaml.CSafeDumper)


def write_small(path: Path) -> Path:
    """Write it."""
    path.write_text(_small())
    return path
