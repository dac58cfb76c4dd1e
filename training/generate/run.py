"""Generate: descriptions to videos and a manifest of them, resumable to the video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.clips import TrainingError
from training.crew import Crew
from training.generate.backend import BUILT_IN, Backend, Dtype, load_backend
from training.generate.folder import WHOLE, Folder, Shard, is_safe_name, writing_failed
from training.generate.generator import Order, call_arguments
from training.generate.hub import cut_descriptions, diffusers_version, find_weights
from training.generate.memory import Model, choose_offload
from training.generate.weights import Weights
from training.generate.worker import Batch, Hardware, Work
from training.manifest import Generation, Row, seed_of

FAILURES_IN_A_ROW = 5
"""After so many a run stops: it is not the descriptions then."""


class Watch(Protocol):
    """Who is told how a run goes."""

    def begin(self, missing: int, kept: int) -> None:
        """Before the first video, with how many are to be made and how many are there."""

    def warn(self, sentence: str) -> None:
        """What is odd and no reason to stop."""

    def step(self, names: Sequence[str], share: float) -> None:
        """Of these videos this share is computed."""

    def done(self, name: str, reason: str | None) -> None:
        """A video is there, or has failed for a reason."""


@dataclass(frozen=True, slots=True)
class Request:
    """A run.

    Attributes:
        rows: descriptions.
        folder: where videos and manifest go.
        settings: the backend, as it stands after the flags.
        own: the backend as its file says.
        weights: folder or hub id.
        hardware: what computes.
        shard: which of the rows are this run's.
    """

    rows: Sequence[Row]
    folder: Folder
    settings: Backend
    own: Backend
    weights: str
    hardware: Hardware
    shard: Shard = WHOLE


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left.

    Attributes:
        manifest: rows of the videos that are there.
        videos: how many, of all shards.
        made: by this run.
        kept: of this run's videos, there before.
        failed: why each other video of this run is not there, by id.
    """

    manifest: Path
    videos: int
    made: int
    kept: int
    failed: dict[str, str]


def generate(request: Request, crew: Crew, watch: Watch) -> Result:
    """Make every video of a shard that is not there yet.

    A video that cannot be made is kept with its reason and tried again by the next run.

    Raises:
        TrainingError: descriptions, weights or settings cannot be used, memory or disk do not
            suffice, or no video can be made.
    """
    orders = [_order(row) for row in request.rows]
    memory = _MemoryCheck(request, crew)
    weights = find_weights(request.weights, request.settings, memory.check)
    work = _work(request, weights)
    folder, mine = request.folder, request.shard.of(orders)
    with folder.held(request.shard):
        folder.sweep(mine)
        films = folder.films(orders, work.generation)
        missing = folder.in_turn(order for order in mine if order.id not in films)
        if missing:
            memory.check(weights.parameters)
            call_arguments(request.settings)
            folder.check_space(len(orders) - len(films), request.settings, films.values())
        _warn_of_cut(watch, missing, weights, request.settings)
        watch.begin(len(missing), len(mine) - len(missing))
        try:
            failed = _make(work, missing, crew, watch)
        finally:
            rows = _listed(request, orders, work)
    if not rows and failed:
        name, reason = next(iter(failed.items()))
        raise TrainingError(f"no video could be made; the first, {name}: {reason}")
    made = len(missing) - len(failed)
    return Result(folder.manifest, len(rows), made, len(mine) - len(missing), failed)


def _order(row: Row) -> Order:
    if not is_safe_name(row.id):
        raise TrainingError(
            f"id {row.id[:80]!r} cannot name a file; give letters, digits, '.', '_' and '-', at "
            "most 200, a letter or digit first"
        )
    if not (row.description or "").strip():
        raise TrainingError(f"{row.id!r} has no description to make a video of")
    seed = seed_of(row.id) if row.seed is None else row.seed
    if not 0 <= seed < 2**63:
        raise TrainingError(f"seed ({seed}) of {row.id!r} must be 0 or more and below 2^63")
    return Order(row.id, str(row.description), seed)


@dataclass(frozen=True, slots=True)
class _MemoryCheck:
    """Refuses a pipeline that does not fit here, and advises those that do."""

    request: Request
    crew: Crew

    def check(self, parameters: Mapping[str, int]) -> None:
        """Raises TrainingError. Workers on other machines look for themselves."""
        if self.crew.ray and "RAY_ADDRESS" in os.environ:
            return
        hardware, request = self.request.hardware, self.request
        copies = self.crew.workers
        model = Model(
            request.settings, request.own, parameters, hardware.dtype, hardware.batch, copies
        )
        choose_offload(model, hardware.free(), hardware.offload, self._others())

    def _others(self) -> Iterator[Model]:
        hardware = self.request.hardware
        for name in BUILT_IN:
            other = load_backend(name)
            dtype: Dtype = other.dtype if hardware.device == "cuda" else hardware.dtype
            yield Model(other, other, other.parameters, dtype, hardware.batch, self.crew.workers)


def _warn_of_cut(watch: Watch, orders: Sequence[Order], weights: Weights, to: Backend) -> None:
    if to.max_tokens is None:
        return
    texts = {order.id: order.description for order in orders}
    cut = cut_descriptions(weights.folder, texts, to.max_tokens)
    if cut:
        watch.warn(
            f"{len(cut)} of {len(orders)} descriptions are longer than the {to.max_tokens} tokens "
            f"that {to.name} reads, the first {cut[0]}; their ends have no effect"
        )


def _work(request: Request, weights: Weights) -> Work:
    settings = request.settings
    generation = Generation(
        backend=settings.name,
        pipeline=settings.pipeline,
        model=weights.model,
        weights_sha256=weights.sha256(),
        dtype=request.hardware.dtype,
        steps=settings.steps,
        guidance=settings.guidance,
        negative_prompt=settings.negative_prompt,
        frames=settings.frames,
        fps=settings.fps,
        height=settings.height,
        width=settings.width,
        max_tokens=settings.max_tokens,
        tiling=settings.tiling,
        arguments=settings.arguments,
        diffusers=diffusers_version(),
    )
    hardware = request.hardware
    return Work(request.folder, settings, request.own, weights, hardware, generation)


def _make(work: Work, missing: Sequence[Order], crew: Crew, watch: Watch) -> dict[str, str]:
    """Make videos; why each that could not be made could not, by id."""
    size, failed, in_a_row = work.hardware.batch, dict[str, str](), 0
    batches = [Batch(tuple(missing[at : at + size])) for at in range(0, len(missing), size)]
    begin = work.begin if not crew.is_alone else lambda: work.using(work.load(), watch.step)
    for index, made in crew.share(begin, batches):
        if made.stop is not None:
            raise TrainingError(made.stop)
        for order, reason in zip(batches[index].orders, made.reasons, strict=True):
            watch.done(order.id, reason)
            in_a_row = 0 if reason is None else in_a_row + 1
            if reason is not None:
                failed[order.id] = reason
                _keep_failure(work.folder, order, reason)
            if in_a_row == FAILURES_IN_A_ROW:
                raise TrainingError(
                    f"{in_a_row} videos in a row could not be made; the last, {order.id}: "
                    f"{reason}; mend that, and the same command goes on"
                )
    return failed


def _keep_failure(folder: Folder, order: Order, reason: str) -> None:
    try:
        folder.save_failure(order.id, reason)
    except OSError as error:
        raise writing_failed(error, folder.path) from None


def _listed(request: Request, orders: Sequence[Order], work: Work) -> list[Row]:
    """The manifest's rows; where no video is there, none is written."""
    folder = request.folder
    if not any(folder.video(order.id).exists() for order in orders):
        return []
    try:
        return folder.write_manifest(request.rows, orders, work.generation, request.shard)
    except OSError as error:
        raise writing_failed(error, folder.path) from None
