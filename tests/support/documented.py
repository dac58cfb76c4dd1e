"""The commands that training/README.md shows under a heading."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def documented(heading: str) -> list[str]:
    """Lines of the first block of code under it."""
    text = (ROOT / "training" / "README.md").read_text().split(heading)[1]
    block = re.search(r"```\n(.+?)```", text, re.DOTALL)
    assert block is not None
    return block[1].splitlines()
