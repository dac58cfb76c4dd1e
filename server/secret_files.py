"""Secrets in files of their own, as Docker, Kubernetes and systemd hand them over.

Such a file holds one line. Nothing of it is ever shown; neither is a value
that looks like the secret itself, given where its file's name belongs.
"""

from __future__ import annotations

import os
from pathlib import Path

from server.wording import quoted

MAX_BYTES = 64 * 1024


class SecretFileError(ValueError):
    """A file that yields no secret; the message says why, without anything of it."""


def read_secret(path: object) -> str:
    """The one line of a file, without its end.

    Who may read the file is left to whoever mounts it: Docker and Kubernetes
    often make secrets readable by all within the container.

    Args:
        path: of the file, absolute or relative to the working directory.

    Raises:
        SecretFileError: it is no path, or the file is missing, empty, not text or more
            than one line.
    """
    if not isinstance(path, str) or not path or "\0" in path:
        raise SecretFileError(f"{quoted(path)} must be the path of a file that holds the secret")
    if "://" in path:
        raise SecretFileError(
            "its value is a URL (not shown), not the path of a file; write the URL into a file "
            "and give that file's path"
        )
    try:
        return _one_line_of(_content(Path(path)), path)
    except OSError as error:
        raise SecretFileError(
            f"{path} cannot be read ({error.strerror}); give the path of a file that this "
            "user may read"
        ) from None


def _content(path: Path) -> bytes:
    # Without waiting: a pipe that nobody writes to would hold up the start for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES + 1) or b""


def _one_line_of(content: bytes, path: str) -> str:
    if len(content) > MAX_BYTES:
        raise SecretFileError(f"{path} is over {MAX_BYTES // 1024} KiB; expected one line")
    try:
        lines = content.decode().strip("\r\n").splitlines()
    except UnicodeDecodeError:
        raise SecretFileError(f"{path} is not UTF-8 text; expected one line") from None
    if not lines or not lines[0].strip():
        raise SecretFileError(f"{path} is empty; expected the secret in one line")
    if len(lines) > 1:
        raise SecretFileError(f"{path} has {len(lines)} lines; expected the secret in one")
    return lines[0]
