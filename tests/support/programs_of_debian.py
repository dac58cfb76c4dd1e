"""Programs that tests start and Debian packages bring."""

from __future__ import annotations

import shutil


def find_program(name: str) -> str | None:
    """Its path; None where it is not installed. Debian hides some where only root looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")
