"""Ways to spoil a file: at random bytes, and in the structure of what it says."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

T = TypeVar("T")
Place = tuple[str | int, ...]

UNREADABLE = Path("/proc/self/mem")
"""Opens, and fails at its first byte, even for root."""

_ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, -0.0, 10**12, 2**64, 10**400, 10**4000, 1e308,
    float("nan"), float("inf"), float("-inf"),
    "", "x", "1", "nan", "\n", "a\nb", "\0", "\ud800", "\u2028", "é" * 300, "x" * 5000,
    "../x", "/etc/passwd", "./x", "a//b", "..", ".", [], [[]], [1, 2], {}, {"x": 1}, {"\n": {}},
]  # fmt: skip
# Copies: what is put into a tree may be spoiled itself by the next step.
odd_values = st.sampled_from(_ODD_VALUES).map(copy.deepcopy)
_odd_keys = st.sampled_from([value for value in _ODD_VALUES if isinstance(value, str)])

_REMEDY = re.compile(r"\b(mend|remove|check|export|copy|give|add|must|should|valid|see|Unable)\b")


few_or_many = pytest.mark.parametrize(
    "examples", [100, pytest.param(600, marks=pytest.mark.long)], ids=["few", "many"]
)


def assert_sentence(error: Exception, *names: object) -> None:
    """One printable line of sane length that names these and says what to do."""
    sentence = str(error)
    assert sentence.isprintable(), ascii(sentence)
    assert len(sentence) < 1000
    assert _REMEDY.search(sentence), sentence
    for name in names:
        assert str(name) in sentence


def assert_refused(code: int, out: str, err: str) -> None:
    """What the command line makes of a refusal: exit code 2 and one line of standard error."""
    assert code == 2
    assert out == ""
    assert err.startswith("gvvad: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def holds(law: Callable[[T], None], cases: st.SearchStrategy[T], examples: int) -> None:
    """Try the law on so many cases, the same ones in every run."""
    fixed = settings(derandomize=True, database=None, deadline=None, max_examples=examples)
    fixed(given(cases)(law))()


@st.composite
def spoiled_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The content after one to three bytes or runs were flipped, dropped, added or cut off."""
    spoiled = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(spoiled) - 1)))
        match draw(st.sampled_from(["flip", "flip", "drop", "add", "cut"])):
            case "flip" if spoiled:
                spoiled[at] ^= draw(st.integers(1, 255))
            case "drop":
                del spoiled[at : at + draw(st.integers(1, 8))]
            case "add":
                spoiled[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del spoiled[at:]
    return bytes(spoiled)


@st.composite
def spoiled_tree(draw: st.DrawFn, tree: Any) -> Any:
    """The tree after one or two of its parts were dropped, renamed, doubled or replaced."""
    spoiled = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(spoiled))
        if not places:
            return draw(odd_values)
        *way, last = draw(st.sampled_from(places))
        parent = spoiled
        for step in way:
            parent = parent[step]
        _spoil(draw, parent, last)
    return spoiled


def _places(tree: Any, above: Place = ()) -> Iterator[Place]:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*above, key)
        yield from _places(tree[key], (*above, key))


def _spoil(draw: st.DrawFn, parent: Any, key: Any) -> None:
    match draw(st.sampled_from(["drop", "rename", "replace", "replace", "replace", "add"])):
        case "drop":
            del parent[key]
        case "rename" if isinstance(parent, dict):
            parent[draw(_odd_keys)] = parent.pop(key)
        case "add" if isinstance(parent, dict):
            parent[draw(_odd_keys)] = draw(odd_values)
        case "add":
            parent.insert(key, draw(odd_values))
        case _:
            parent[key] = draw(odd_values)
