"""Calls held against the signatures of the real thing, so that a fake takes no wrong one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any


def checked(real: Any, fake: Callable[..., Any]) -> Callable[..., Any]:
    """`fake`, callable only as `real` is: a wrong name or number of arguments raises."""
    signatures = _signatures(real)

    def call(*arguments: Any, **named: Any) -> Any:
        _bind(signatures, arguments, named)
        return fake(*arguments, **named)

    return call


def _signatures(real: Any) -> list[inspect.Signature]:
    try:
        return [inspect.signature(real)]
    except ValueError:  # pybind11 tells its signatures in words only
        found = re.findall(rf"^(?:\d+\. )?{real.__name__}\((.*)\) -> ", real.__doc__, re.MULTILINE)
        assert found, f"{real} tells no signature"
        return [_from_words(words) for words in found]


def _bind(signatures: list[inspect.Signature], arguments: Any, named: Any) -> None:
    problem = TypeError("no signature")
    for signature in signatures:
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            problem = error
        else:
            return
    raise problem


def _from_words(words: str) -> inspect.Signature:
    """From `self: T, name: str, flags: int = 0`; without self, as for a bound method."""
    parts: list[str] = []
    depth = 0
    for part in words.split(", "):
        if depth > 0:
            parts[-1] += f", {part}"
        else:
            parts.append(part)
        depth += sum(part.count(c) for c in "[(<") - sum(part.count(c) for c in "])>")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(
                part.partition(":")[0],
                kind,
                default=None if " = " in part else inspect.Parameter.empty,
            )
            for part in parts
            if not part.startswith("self")
        ]
    )
