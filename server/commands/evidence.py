"""What the command line has for evidence: its files, a stream's mode and masks."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.arguments import UsageError

if TYPE_CHECKING:
    from server.evidence.files import EvidenceKind
    from server.rpc.client import Client, ClientError
    from server.tuning import EvidenceMode, Mask


@dataclass(frozen=True, slots=True)
class Saved:
    """What was saved of an alert's evidence.

    Attributes:
        paths: the files.
        refusal: why that is not all, or nothing; None where it is all that is kept.
    """

    paths: tuple[Path, ...]
    refusal: ClientError | None


def save_evidence(client: Client, options: argparse.Namespace) -> Saved:
    """Save what there is of an alert's evidence.

    Raises:
        OSError: a file cannot be written.
    """
    from server.evidence.files import EvidenceKind
    from server.rpc.client import ClientError

    saved: list[Path] = []
    refusals: list[ClientError] = []
    for kind in EvidenceKind:
        try:
            saved.append(_save(client, options, kind))
        except ClientError as error:
            refusals.append(error)
    # A snapshot alone is all that some streams keep; only what is still coming is worth an error.
    pending = [error for error in refusals if error.code != "NOT_FOUND"]
    serious = pending or ([] if saved else refusals)
    return Saved(tuple(saved), serious[0] if serious else None)


def _save(client: Client, options: argparse.Namespace, kind: EvidenceKind) -> Path:
    path: Path = options.out / f"{options.alert}{kind.value}"
    scratch = path.with_name(f".{path.name}.part")
    pieces = client.read_evidence(options.alert, kind)
    first = next(pieces, b"")  # before anything is written: a refusal leaves no file behind
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with scratch.open("wb") as file:
            file.write(first)
            file.writelines(pieces)
        scratch.rename(path)
    except BaseException:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    return path


def add_evidence_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of a stream that concern its pictures."""
    parser.add_argument(
        "--evidence",
        choices=("keep", "blur", "none"),
        help="what is kept of the pictures around an alert (default: the server's setting)",
    )
    parser.add_argument(
        "--mask",
        action="append",
        metavar='"X,Y X,Y X,Y"',
        help="a region that the detector never sees: corners in order, each 0 to 1 from the upper "
        "left; may be repeated, and takes the place of all masks that there were",
    )


def evidence_mode_of(options: argparse.Namespace) -> EvidenceMode | None:
    """What is to be kept; None where nothing was said."""
    from server.tuning import EvidenceMode

    return EvidenceMode(options.evidence) if options.evidence else None


def masks_of(options: argparse.Namespace) -> tuple[Mask, ...] | None:
    """The masks that were given; None where nothing was said.

    Raises:
        UsageError: one is none, or they are given and taken away at once.
    """
    if getattr(options, "no_masks", False):
        if options.mask:
            raise UsageError("--no-masks takes away what --mask gives; leave one of them out")
        return ()
    return tuple(map(_mask, options.mask)) if options.mask else None


def _mask(text: str) -> Mask:
    from server.tuning import Mask

    try:
        pairs = [tuple(map(float, corner.split(","))) for corner in text.split()]
        corners = tuple((x, y) for x, y in pairs)
    except ValueError:
        raise UsageError(
            f'--mask {text!r} must be corners such as "0,0 0.4,0 0.4,0.25", each X,Y'
        ) from None
    try:
        return Mask(corners)
    except ValueError as error:
        raise UsageError(f"--mask: {error}") from None
