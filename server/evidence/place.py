"""Where evidence goes unless the settings say so."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def beside(store_url: str) -> Path | None:
    """Where evidence goes unless the settings say so; None where the store is in memory.

    Beside a SQLite file, in the working directory for any other database.

    >>> print(beside("sqlite:////var/lib/gvvad/gvvad.db"), beside("sqlite://"))
    /var/lib/gvvad/gvvad-evidence None
    """
    try:
        url = make_url(store_url)
    except (ArgumentError, ValueError):
        return None  # the store refuses it with a better sentence
    if url.get_backend_name() != "sqlite":
        return Path("gvvad-evidence")
    if url.database in (None, "", ":memory:"):
        return None
    file = Path(str(url.database))
    return file.with_name(f"{file.stem}-evidence")
