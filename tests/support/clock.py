"""A system clock that a test may set, of Debian's libfaketime."""

from __future__ import annotations

from pathlib import Path

# The dynamic linker puts the machine's own directory of libraries for $LIB.
_LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"


class Clock:
    """CLOCK_REALTIME of a process and its children; their monotonic clock runs on."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)
        self.variables = {
            "LD_PRELOAD": _LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # it would look at the file every ten seconds only
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, ahead_seconds: int) -> None:
        """Put it so far ahead of this machine's clock; negative is behind."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(f"{ahead_seconds:+d}\n")
        scratch.replace(self._file)
