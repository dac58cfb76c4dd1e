"""How many tokens a generator's text encoder makes of a description."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from pathlib import Path

from training.clips import TrainingError
from training.torchvision_ops import make_torchvision_importable

_PART = re.compile(r"[a-zA-Z]+|\S")
_LETTERS_A_PIECE = 3
_PIECES_OF_A_MARK = 2


def estimated_tokens(text: str) -> int:
    """Tokens of an English text by T5's tokenizer, rather too many than too few.

    T5's 32,000 pieces hold the common English words whole and cut rarer ones into parts that
    are mostly longer than three letters; here every three letters begun count one. Each other
    sign counts two, for itself and for the mark of the space before it, and one closes the text.
    Beside CLIP's tokenizer, of 49,000 pieces, that is 92 for 52 at the median of the grammar's
    descriptions, and never less. It is no bound for what is no English: letters without sense are
    cut one by one, and only the tokenizer itself counts those.

    >>> estimated_tokens("A man collapses.")  # A, man, col lap ses, full stop, end
    8
    """
    parts = _PART.findall(text)
    return 1 + sum(
        math.ceil(len(part) / _LETTERS_A_PIECE)
        if part.isascii() and part.isalpha()
        else _PIECES_OF_A_MARK
        for part in parts
    )


def exact_tokens(folder: Path) -> Callable[[str], int]:
    """A count by a tokenizer of transformers on disk; nothing is downloaded.

    Args:
        folder: the tokenizer, or weights of diffusers with a folder `tokenizer` in it.

    Raises:
        TrainingError: no tokenizer there, or no transformers.
    """
    place = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    if not place.is_dir():
        raise TrainingError(f"--tokenizer {folder} is no folder; give a tokenizer's, or weights'")
    make_torchvision_importable()
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise TrainingError(
            "transformers, which reads tokenizers, is not installed; `pip install "
            "'gvvad[synthetic]'`, or leave --tokenizer out for an estimate"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise TrainingError(
            f"--tokenizer {place} cannot be read as a tokenizer ({reason})"
        ) from None
    # A fast tokenizer must not be used by two threads at once.
    alone = threading.Lock()

    def count(text: str) -> int:
        with alone:
            return len(tokenizer(text)["input_ids"])

    return count
