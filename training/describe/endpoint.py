"""Where a writing endpoint is, and one question to it: any that speaks OpenAI's chat completions.

The client of the `openai` package retries 429, 5xx and silence with growing
pauses, and keeps to a Retry-After. What it gives up on is told in one sentence,
without the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from training.clips import TrainingError
from training.describe.answers import Answer, Request

OPENAI_URL = "https://api.openai.com/v1"

MOST_AT_ONCE = 64

# The client wants one; endpoints without keys ignore it.
_NO_KEY = "no-key"

_GOES_ON = "answers so far are kept, and the same command goes on from there"
_TOLD_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Patience:
    """How an endpoint is treated.

    Attributes:
        timeout_seconds: for one try.
        retries: after the first try.
        concurrency: requests at the same time.
    """

    timeout_seconds: float = 60
    retries: int = 5
    concurrency: int = 4

    def __post_init__(self) -> None:
        if not 0.1 <= self.timeout_seconds <= 3600:
            raise TrainingError(f"--timeout ({self.timeout_seconds:g}) must be 0.1 to 3600 seconds")
        if not 0 <= self.retries <= 20:
            raise TrainingError(f"--retries ({self.retries}) must be 0 to 20")
        if not 1 <= self.concurrency <= MOST_AT_ONCE:
            raise TrainingError(f"--concurrency ({self.concurrency}) must be 1 to {MOST_AT_ONCE}")


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint's model.

    Attributes:
        model: name at the endpoint.
        base_url: up to and with its version, such as https://api.openai.com/v1.
        api_key: never shown.
    """

    model: str
    base_url: str
    api_key: str = field(repr=False)

    @property
    def shown_url(self) -> str:
        """The URL without a user, a password or a query."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def place_of(environment: Mapping[str, str], model: str | None, base_url: str | None) -> Place:
    """The endpoint that flags and environment name; flags first, then ours, then OpenAI's.

    Raises:
        TrainingError: no model, a URL or a key that is none, or no key for OpenAI itself.
    """
    model = model or environment.get("GVVAD_WRITER_MODEL")
    if not model:
        raise TrainingError("--writer openai needs a model: --model, or GVVAD_WRITER_MODEL")
    url = (
        base_url
        or environment.get("GVVAD_WRITER_BASE_URL")
        or environment.get("OPENAI_BASE_URL")
        or OPENAI_URL
    )
    key = environment.get("GVVAD_WRITER_API_KEY") or environment.get("OPENAI_API_KEY") or ""
    key = key.strip()
    # Such a key fits no header, and the error about the header would show it.
    if not (key.isascii() and key.isprintable()):
        raise TrainingError("the key in GVVAD_WRITER_API_KEY or OPENAI_API_KEY is not plain ASCII")
    place = Place(model, url, key or _NO_KEY)
    _check_url(place)
    if not key and place.base_url.rstrip("/") == OPENAI_URL:
        raise TrainingError(
            f"{OPENAI_URL} needs a key in GVVAD_WRITER_API_KEY or OPENAI_API_KEY; for an endpoint "
            "of your own give --base-url"
        )
    return place


def _check_url(place: Place) -> None:
    try:
        parts = urlsplit(place.base_url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    except ValueError:
        pass
    raise TrainingError(
        "--base-url (or GVVAD_WRITER_BASE_URL) must be an http or https URL with a host, such as "
        f"http://127.0.0.1:8000/v1; it begins with {place.base_url.partition('://')[0][:20]!r}"
    )


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """The part of a chat completion that is read."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


class Endpoint:
    """An endpoint that can be asked from several threads.

    Attributes:
        by_schema: whether it takes a JSON schema; one that refuses gets plain JSON mode.
    """

    def __init__(self, place: Place, patience: Patience) -> None:
        try:
            import openai
        except ImportError:
            raise TrainingError(
                "openai, which speaks to endpoints, is not installed; "
                "`pip install 'gvvad[synthetic]'`, or take --writer grammar"
            ) from None
        self._openai, self._place, self._patience = openai, place, patience
        self._client = openai.OpenAI(
            api_key=place.api_key,
            base_url=place.base_url,
            timeout=patience.timeout_seconds,
            max_retries=patience.retries,
        )
        self.by_schema = True

    def ask(self, request: Request) -> Answer:
        """Ask once, with the client's retries.

        Raises:
            TrainingError: nothing came, or nothing that is a chat completion.
        """
        openai = self._openai
        try:
            body = self._body(request)
        except openai.APITimeoutError:
            raise self._gave_up(
                f"did not answer within {self._patience.timeout_seconds:g} s, "
                f"{self._patience.retries + 1} times; raise --timeout or look after it; {_GOES_ON}"
            ) from None
        except openai.APIConnectionError as error:
            raise self._gave_up(
                f"cannot be reached ({self._told(error.__cause__ or error)}); check --base-url"
            ) from None
        except openai.APIStatusError as error:
            told = f"{error.status_code}: {self._told(error.response.text)}"
            raise self._gave_up(self._advice(error.status_code, told)) from None
        answer = _answer_of(body, request)
        if answer is None:
            begin = " ".join(body.split())[:60]
            raise self._gave_up(
                f"answered with no chat completion but {self._told(begin)!r}; check --base-url; "
                f"{_GOES_ON}"
            )
        return answer

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()

    def _body(self, request: Request) -> str:
        if self.by_schema:
            schema: Any = {"type": "json_schema", "json_schema": json.loads(request.schema)}
            try:
                return self._post(request, schema)
            except (self._openai.BadRequestError, self._openai.UnprocessableEntityError):
                body = self._post(request, {"type": "json_object"})
            self.by_schema = False  # without the schema it answers
            return body
        return self._post(request, {"type": "json_object"})

    def _post(self, request: Request, response_format: Any) -> str:
        raw = self._client.chat.completions.with_raw_response.create(
            model=request.model, messages=request.messages, response_format=response_format
        )
        return raw.http_response.text

    def _gave_up(self, what: str) -> TrainingError:
        return TrainingError(f"the endpoint {self._place.shown_url} {what}")

    def _advice(self, status: int, told: str) -> str:
        if status in (401, 403):
            return f"refuses the key ({told}); check GVVAD_WRITER_API_KEY"
        if status == 404:
            return f"has no such model or path ({told}); check --model and --base-url"
        if status == 429 or status >= 500:
            tries = self._patience.retries + 1
            return (
                f"still answered {told} after {tries} tries; wait, or lower --concurrency; "
                f"{_GOES_ON}"
            )
        return f"refuses the request ({told})"

    def _told(self, what: object) -> str:
        """One short line of what an endpoint said, without the key."""
        line = " ".join(str(what).split()).replace(self._place.api_key, "***")
        return line[:_TOLD_CHARACTERS] or "nothing"


def _answer_of(body: str, request: Request) -> Answer | None:
    """The answer in a response's body; a refusal is one too, and no pair will be found in it."""
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError:
        return None
    message, usage = completion.choices[0].message, completion.usage or _Usage()
    return Answer(
        model=request.model,
        asked=request.user,
        content=message.content or message.refusal or "",
        input_tokens=max(0, usage.prompt_tokens),
        output_tokens=max(0, usage.completion_tokens),
    )
