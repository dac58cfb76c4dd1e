"""A real HTTP server that speaks OpenAI's chat completions, well or badly, as it is told.

    with serving(rate_limited, good) as endpoint:
        ...  # endpoint.base_url; afterwards endpoint.requests

The first behaviour answers the first request, and so on; the last one answers all that follow.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

INPUT_TOKENS, OUTPUT_TOKENS = 200, 100
"""What every completion claims to have read and written."""


@dataclass(frozen=True)
class Reply:
    """What goes back; a body of None: nothing ever does."""

    status: int = 200
    body: str | None = ""
    headers: dict[str, str] = field(default_factory=dict)


Behaviour = Callable[[dict[str, Any]], Reply]


def completion(content: str | None) -> Reply:
    """A whole chat completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}
    choice["message"] |= {"content": content}  # type: ignore[operator]
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
    return Reply(
        body=json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})
    )


def failure(status: int, message: str, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "x", "code": None}})
    return Reply(status, body, {name.replace("_", "-"): told for name, told in headers.items()})


def elements(request: dict[str, Any]) -> dict[str, str]:
    """The "name: value" lines of the user's message."""
    lines = request["messages"][-1]["content"].splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def good(request: dict[str, Any]) -> Reply:
    """A pair of descriptions that is made from the elements asked for."""
    told = elements(request)
    scene = f"{told['camera viewpoint']} shows {told['location']} {told['light']}"
    event = told["anomalous event"].partition(" (")[0]
    pair = {
        "anomalous": f"{scene}, where {told['subject']} can be seen {event}.",
        "normal": f"{scene}, where {told['subject']} stands about and waits.",
    }
    return completion(json.dumps(pair))


def rate_limited(_: dict[str, Any]) -> Reply:
    return failure(429, "too many requests", retry_after_ms="5")


def broken(_: dict[str, Any]) -> Reply:
    return failure(500, "out of order", retry_after_ms="5")


def unauthorised(request: dict[str, Any]) -> Reply:
    """Refuses the key and, as some do, repeats it."""
    return failure(401, f"wrong key: {request['authorization']}")


def nonsense(_: dict[str, Any]) -> Reply:
    """A completion whose text is no JSON."""
    return completion("Sure! Here are } two descriptions {.")


def wrong_schema(_: dict[str, Any]) -> Reply:
    return completion(json.dumps({"anomalous": "A man falls.", "usual": 3}))


def web_page(_: dict[str, Any]) -> Reply:
    """What stands at an address that is no endpoint."""
    return Reply(body="<html>Welcome</html>", headers={"content-type": "text/html"})


def hanging(_: dict[str, Any]) -> Reply:
    return Reply(body=None)


def plain_json_only(request: dict[str, Any]) -> Reply:
    """Good, unless a JSON schema comes with the request."""
    if request["response_format"]["type"] == "json_schema":
        return failure(400, "response_format json_schema is not supported")
    return good(request)


class Endpoint:
    """The server, and what it was asked.

    Attributes:
        base_url: with its version.
        requests: bodies, each with the header it was authorised by under "authorization".
    """

    def __init__(self, script: tuple[Behaviour, ...]) -> None:
        self.requests: list[dict[str, Any]] = []
        self._script, self._asking = script, threading.Condition()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def asked(self, count: int) -> bool:
        """Wait until it was asked so often; whether it was within a minute."""
        with self._asking:
            return self._asking.wait_for(lambda: len(self.requests) >= count, 60)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _reply(self, request: dict[str, Any]) -> Reply:
        with self._asking:
            behaviour = self._script[min(len(self.requests), len(self._script) - 1)]
            self.requests.append(request)
            self._asking.notify_all()
        reply = behaviour(request)
        if reply.body is None:
            self._closing.wait()
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reply = endpoint._reply(request | {"authorization": self.headers["authorization"]})
                if reply.body is None:
                    self.close_connection = True
                    return
                body = reply.body.encode()
                self.send_response(reply.status)
                for name, value in ({"content-type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        return Handler


@contextmanager
def serving(*script: Behaviour) -> Iterator[Endpoint]:
    """An endpoint on a free port that behaves so, one request after another."""
    endpoint = Endpoint(script or (good,))
    try:
        yield endpoint
    finally:
        endpoint.close()
