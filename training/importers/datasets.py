"""The published datasets that we know by their names.

Each label is told by the video's own name, as its dataset hands names out: a class,
a code, or which half of the dataset it was recorded for. Lists only say what is in
a split.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from training.importers.names import Name, Naming, match_name

UCF_CLASSES = (
    "Abuse",
    "Arrest",
    "Arson",
    "Assault",
    "Burglary",
    "Explosion",
    "Fighting",
    "RoadAccidents",
    "Robbery",
    "Shooting",
    "Shoplifting",
    "Stealing",
    "Vandalism",
)

XD_CLASSES = {
    "B1": "Fighting",
    "B2": "Shooting",
    "B4": "Riot",
    "B5": "Abuse",
    "B6": "CarAccident",
    "G": "Explosion",
}
"""By code; of the up to three codes in a name the first is the video's class."""

PAIRS = 300
"""Descriptions of GV-VAD: 1 to 300 ask for an anomaly, 301 to 600 for the same scenes
without one, in the same order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What tells one dataset from another.

    Attributes:
        parse: what a listed path says; None where it is no name of the dataset.
        example: of a name, for messages.
    """

    parse: Callable[[PurePosixPath], Name | None]
    example: str


_UCF_CRIME = Naming(
    "ucf-crime",
    re.compile(
        rf"(?:Normal_Videos_?\d{{3}}|(?P<anomalous>(?P<kind>{'|'.join(UCF_CLASSES)})\d{{3}}))_x264"
    ),
)

_XD_VIOLENCE = Naming(
    "xd-violence",
    # One recording, a film or an upload, is cut into several videos.
    re.compile(
        r"(?P<group>.+)__#[^#]+?_label_"
        r"(?P<code>A|(?P<anomalous>(?P<kind>B[12456]|G)(?:-(?:B[12456]|G|0)){2}))"
    ),
    XD_CLASSES,
)

_SHANGHAITECH = Naming(
    "shanghaitech",
    # The 330 videos that were recorded for training have three digits and no anomaly, the
    # 107 for testing four, and an anomaly each; later splits deal out the same 437 videos.
    re.compile(r"(?P<group>\d\d)_(?:(?P<anomalous>\d{4})|\d{3})"),
)

_TAD = Naming("tad", re.compile(r"(?:Normal|\d\d_(?P<anomalous>(?P<kind>[A-Za-z]+)))_\d{3}"))

_UCSD_PED2 = Naming("ucsd-ped2", re.compile(r"(?:Train|(?P<anomalous>Test))\d{3}"))

_GENERATED = re.compile(r"(?P<number>\d{1,3})")
_GENERATED_FOLDER = re.compile(r"descriptions_(?P<set>\d+)_")


def _parse_ucf_or_generated(path: PurePosixPath) -> Name | None:
    return _UCF_CRIME.parse(path) or _parse_generated(path)


def _parse_generated(path: PurePosixPath) -> Name | None:
    folder = _GENERATED_FOLDER.match(path.parent.name)
    matched = match_name(_GENERATED, path)
    if folder is None or matched is None:
        return None
    found, crop = matched
    number = int(found["number"])
    if not 1 <= number <= 2 * PAIRS:
        return None
    pair = f"gv-vad/{folder['set']}-{(number - 1) % PAIRS + 1}"
    return Name(
        id=f"gv-vad-{folder['set']}-{number}",
        stem=found[0],
        label="anomalous" if number <= PAIRS else "normal",
        group=pair,
        dataset="gv-vad",
        pair_id=pair,
        crop=crop,
    )


LAYOUTS = {
    "ucf-crime": Layout(_UCF_CRIME.parse, "Abuse028_x264 or Normal_Videos_003_x264"),
    "xd-violence": Layout(_XD_VIOLENCE.parse, "v=5Ftl4nOSytc__#1_label_G-0-0"),
    "shanghaitech": Layout(_SHANGHAITECH.parse, "01_0014 or 01_001"),
    "tad": Layout(_TAD.parse, "01_Accident_004 or Normal_012"),
    "ucsd-ped2": Layout(_UCSD_PED2.parse, "Test001 or Train001"),
    "gv-vad": Layout(
        _parse_ucf_or_generated, "Abuse001_x264_clip.npy or descriptions_1_UCF/2_clip.npy"
    ),
}
"""By the name that the command takes."""
