"""What a broken file holds, as words in the one line of an error.

Files come from strangers: a quoted part may be of any size, depth and alphabet,
and is shown short, on one line and without fail.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

LIMIT_CHARACTERS = 200

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def one_line(text: str) -> str:
    r"""The text, cut to 200 characters, with whatever cannot be printed escaped.

    >>> one_line("door\n")
    'door\\n'
    """
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text[:LIMIT_CHARACTERS]
    )
    return shown if len(text) <= LIMIT_CHARACTERS else f"{shown}..."


def quoted(value: object) -> str:
    """A value as Python writes it, long and deep parts left out.

    >>> quoted([1, [2, "x"]])
    "[1, [2, 'x']]"
    """
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python does not write out thousands of digits
        return "a number of thousands of digits"


def or_near(text: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses a name: the nearest known one, where there is one.

    >>> or_near("tensort", ["onnxruntime", "tensorrt"])
    '; did you mean tensorrt?'
    >>> or_near("abacus", ["onnxruntime", "tensorrt"])
    ''
    """
    # Closer than usual: "gpu" is not meant to be "cpu".
    near = difflib.get_close_matches(text[:LIMIT_CHARACTERS], list(known), n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""
