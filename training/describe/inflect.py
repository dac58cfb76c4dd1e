"""English words in their regular forms, to find them in a text as whole words."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+")
_HISSES = ("s", "x", "z", "ch", "sh")
_DOUBLING = re.compile(r"[^aeiou]*[aeiou][bdgklmnprt]")
_CONSONANT_Y = re.compile(r".*[^aeiou]y")


def forms(phrase: str) -> set[str]:
    """A word, or a phrase whose last word changes, in lower case and in every regular form.

    >>> sorted(forms("rob"))
    ['rob', 'robbed', 'robber', 'robbers', 'robbing', 'robs']
    >>> {"carries", "carried", "carrying"} <= forms("carry")
    True
    """
    *head, word = phrase.lower().split()
    return {" ".join([*head, form]) for form in _forms(word)}


def _forms(word: str) -> set[str]:
    plural = "es" if word.endswith(_HISSES) else "s"
    if _CONSONANT_Y.fullmatch(word):
        stem = word[:-1]
        endings = {f"{stem}i{ending}" for ending in ("es", "ed", "er", "ers")} | {f"{word}ing"}
        return {word} | endings
    stem = word.removesuffix("e")
    if _DOUBLING.fullmatch(word):
        stem = word + word[-1]
    elif word.endswith("ic"):
        stem = f"{word}k"
    return {word, word + plural} | {stem + ending for ending in ("ed", "ing", "er", "ers")}


class Vocabulary:
    """Words and phrases to look for."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._forms = {form for phrase in phrases for form in forms(phrase)}
        self._longest = max((form.count(" ") + 1 for form in self._forms), default=0)

    def found_in(self, text: str) -> str | None:
        """The first of them that a text holds, in the form that it has there.

        >>> Vocabulary(["rob", "tear gas"]).found_in("Robins sing; TEAR-GAS drifts.")
        'tear gas'
        """
        words = [word.lower() for word in _WORD.findall(text)]
        for start in range(len(words)):
            for length in range(1, self._longest + 1):
                phrase = " ".join(words[start : start + length])
                if phrase in self._forms:
                    return phrase
        return None
