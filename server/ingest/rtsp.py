"""Open RTSP sources, and say in one sentence why one could not be opened.

FFmpeg reports much of what goes wrong as "Invalid data", so a failure is looked
into afterwards: the good path makes exactly one connection.

Opening probes as little as FFmpeg lets it: one packet, one microsecond (0 would
mean its default). With the defaults the first second of video arrives late, in a
burst. `fflags=nobuffer` is left out on purpose: it throws the probed packets
away, the first key frame among them, and nothing can be decoded before the next
one, ten seconds later with the long key intervals of real cameras.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from errno import EADDRINUSE

import av
import av.container
import av.error

from server.ingest.access import Address
from server.ingest.settings import IngestSettings
from server.ingest.video import strerror
from server.streams import Mode, Reason, SourceError, SourceUrl, StreamConfig

LISTEN_SLICE_SECONDS = 2
"""How long one wait for a pushing camera lasts: a listener can only end between two."""

_DIAGNOSIS_SECONDS = 1.0
_PROBE_OPTIONS = {
    "probesize": "32",
    "analyzeduration": "1",
    "allowed_media_types": "video",  # sound would hide from the read timeout that pictures stopped
}


def pull(config: StreamConfig, settings: IngestSettings) -> av.container.InputContainer:
    """Connect to a camera.

    Raises:
        SourceError: it cannot be connected to, refuses, or offers no video.
    """
    addresses = resolve(config.url)
    settings.access.check_addresses(config, addresses)
    options = {**_PROBE_OPTIONS, "rtsp_transport": config.transport.value}
    started = time.monotonic()
    try:
        return _open(config, options, settings.open_timeout_seconds, settings)
    except (av.error.FFmpegError, OSError) as error:
        waited_seconds = time.monotonic() - started
        raise _pull_error(error, config, waited_seconds, settings) from None


def listen(
    config: StreamConfig, settings: IngestSettings, stopped: Callable[[], bool]
) -> av.container.InputContainer | None:
    """Wait for a camera to push to the URL's address.

    Whoever knocks and does not push video is sent away and the wait goes on.

    Args:
        config: a LISTEN stream.
        settings: timeouts and the addresses that may be bound.
        stopped: asked every two seconds whether to give up.

    Returns:
        The camera's session, or None once stopped.

    Raises:
        SourceError: the address cannot be listened on.
    """
    addresses = resolve(config.url)
    settings.access.check_addresses(config, addresses)
    options = {
        **_PROBE_OPTIONS,
        "rtsp_flags": "listen",
        "listen_timeout": str(LISTEN_SLICE_SECONDS),
    }
    timeout_seconds = LISTEN_SLICE_SECONDS + settings.open_timeout_seconds
    # The stream's former life, or the camera's last session, may hold the port a little longer.
    insist_at_seconds = time.monotonic() + LISTEN_SLICE_SECONDS + 1
    while not stopped():
        started = time.monotonic()
        try:
            return _open(config, options, timeout_seconds, settings)
        except (av.error.FFmpegError, OSError) as error:
            if time.monotonic() > insist_at_seconds or getattr(error, "errno", 0) != EADDRINUSE:
                _require_bindable(addresses, config.url)
            if time.monotonic() - started < 0.1 and not isinstance(error, av.error.TimeoutError):
                time.sleep(0.1)  # a knocker in a hurry must not spin this loop
    return None


def _open(
    config: StreamConfig, options: dict[str, str], open_seconds: float, settings: IngestSettings
) -> av.container.InputContainer:
    return av.open(
        config.url.reveal(),
        format="rtsp",
        options=options,
        timeout=(open_seconds, settings.read_timeout_seconds),
    )


def resolve(url: SourceUrl) -> list[Address]:
    """Addresses that the URL's host stands for.

    Raises:
        SourceError: UNREACHABLE, the name is unknown.
    """
    try:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceError(
            Reason.UNREACHABLE, f"host {url.host} cannot be found; check its name and the DNS"
        ) from None
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


def _pull_error(
    error: Exception, config: StreamConfig, waited_seconds: float, settings: IngestSettings
) -> SourceError:
    url, where = config.url, f"{config.url.host}:{config.url.port}"
    match error:
        case av.error.HTTPUnauthorizedError() | av.error.HTTPForbiddenError():
            return SourceError(
                Reason.AUTH_FAILED,
                f"{where} refuses the user name or password; update the stream's URL",
            )
        case av.error.HTTPNotFoundError():
            return SourceError(Reason.NOT_FOUND, f"{where} has no stream {url}")
        case av.error.HTTPOtherClientError() if _offers_no_video(config, settings):
            return SourceError(Reason.NO_VIDEO, f"{url} has no video stream")
        case av.error.HTTPError() | av.error.HTTPClientError():
            return SourceError(Reason.UNREACHABLE, f"{where} refuses: {strerror(error)}")
        case av.error.DecoderNotFoundError() | av.error.DemuxerNotFoundError():
            return SourceError(
                Reason.CODEC_UNSUPPORTED, f"{where} sends a codec that cannot be decoded here"
            )
    timed_out = waited_seconds >= 0.95 * settings.open_timeout_seconds
    if timed_out or isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return SourceError(Reason.TIMEOUT, f"{where} did not answer in {waited_seconds:.1f} s")
    return _diagnosed(error, url, where)


def _offers_no_video(config: StreamConfig, settings: IngestSettings) -> bool:
    """Whether the camera lets in who asks for sound too, and then has nothing else."""
    options = {"rtsp_transport": config.transport.value, "analyzeduration": "1", "probesize": "32"}
    try:
        with _open(config, options, settings.open_timeout_seconds, settings) as container:
            return not container.streams.video
    except (av.error.FFmpegError, OSError):
        return False


def _diagnosed(error: Exception, url: SourceUrl, where: str) -> SourceError:
    """Why FFmpeg failed at once without a telling error: ask the port itself."""
    try:
        socket.create_connection((url.host, url.port), timeout=_DIAGNOSIS_SECONDS).close()
    except TimeoutError:
        return SourceError(Reason.TIMEOUT, f"{where} does not answer")
    except OSError as refusal:
        return SourceError(
            Reason.UNREACHABLE, f"{where} cannot be connected to ({strerror(refusal)})"
        )
    if url.scheme == "rtsps":
        return SourceError(Reason.TLS_FAILED, f"{where} answers, but the TLS handshake failed")
    detail = url.redact(strerror(error))
    return SourceError(Reason.UNREACHABLE, f"{where} answers, but not with RTSP video ({detail})")


def _require_bindable(addresses: list[Address], url: SourceUrl) -> None:
    """Raise where no socket can be bound to the address that a camera should push to."""
    family = socket.AF_INET6 if addresses[0].version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(addresses[0]), url.port))
        except OSError as error:
            raise SourceError(
                Reason.UNREACHABLE,
                f"cannot listen on {url.host}:{url.port} ({strerror(error)})",
            ) from None


def ended(error: Exception | None, mode: Mode, settings: IngestSettings) -> SourceError:
    """Why a source that had been opened gives no more frames.

    Args:
        error: what reading raised; None where it ended silently, as it does when
            the peer is killed.
        mode: of the stream.
        settings: of the read timeout that the sentence names.
    """
    who = "the camera" if mode is Mode.PULL else "the pushing camera"
    if error is None:
        return SourceError(Reason.END_OF_STREAM, f"{who} closed the connection")
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        seconds = settings.read_timeout_seconds
        return SourceError(Reason.STALE, f"{who} sent no frame for {seconds:g} s")
    return SourceError(Reason.END_OF_STREAM, f"{who} broke off ({strerror(error)})")
