"""Answers of an endpoint on disk, by what was asked: nothing is asked twice.

One file an answer, written whole, so that a run that is killed keeps all it has paid for.
The key to the endpoint is in none of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Tokens = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Request:
    """What decides an answer.

    Attributes:
        model: name at the endpoint.
        system: the standing instruction.
        user: the elements of one pair.
        schema: JSON of the answer's schema.
    """

    model: str
    system: str
    user: str
    schema: str

    @property
    def messages(self) -> list[Any]:
        """As the endpoint wants them."""
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": self.user},
        ]

    @property
    def key(self) -> str:
        """Hash of all of it."""
        parts = [self.model, self.system, self.user, self.schema]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Answer(BaseModel):
    """What an endpoint answered.

    Attributes:
        model: that was asked.
        asked: the user's message, for people who read the file.
        content: of the answer, whatever it holds.
        input_tokens: that the endpoint counted; 0 where it told none.
        output_tokens: likewise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    asked: str
    content: str
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0


class Answers:
    """A folder of answers; it is made with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, request: Request) -> Answer | None:
        """The answer to a request; None where there is none, or a file that is broken."""
        try:
            return Answer.model_validate_json(self._path(request).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep(self, request: Request, answer: Answer) -> None:
        """Write an answer, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(request)
        scratch = path.with_name(f".{path.name}")
        scratch.write_text(answer.model_dump_json(indent=1) + "\n")
        scratch.replace(path)

    def _path(self, request: Request) -> Path:
        return self._folder / f"{request.key}.json"
