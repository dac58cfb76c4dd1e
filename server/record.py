"""One stream as the supervisor keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from server.alert_machine import AlertMachine
from server.alerts import ScoredSpan
from server.batcher import Lane
from server.journal import StateLog
from server.push import PushSession
from server.scoring import DropReason, WindowScore
from server.streams import StreamConfig, StreamState, StreamStatus
from server.views import StreamView


@dataclass(slots=True, eq=False)
class StreamRecord:
    """All that belongs to one stream; guarded by the supervisor's lock.

    Attributes:
        config: what a client asked for.
        created_seconds: UTC of its creation.
        lane: its place at the batcher.
        machine: what makes alerts of its scores.
        reserved: the store gives out no sequence below this one again.
        temporary: it lives as long as its session and is not stored.
        session: the call that pushes its video; None where nobody does.
        last_score: newest score in [0, 1]; None before the first.
        status: what it is doing now.
        state_log: what the log was told of that.
        thinned: the server has no room for all its windows.
    """

    config: StreamConfig
    created_seconds: float
    lane: Lane
    machine: AlertMachine
    reserved: int
    temporary: bool = False
    session: PushSession | None = None
    last_score: float | None = None
    status: StreamStatus = field(default_factory=lambda: StreamStatus(StreamState.CONNECTING))
    state_log: StateLog = field(default_factory=StateLog)
    thinned: bool = False

    @property
    def can_be_thinned(self) -> bool:
        """Whether it may have fewer windows scored where the server is full."""
        return self.config.sampling_when_full is not None and not self.lane.lossless

    @property
    def in_effect(self) -> StreamConfig:
        """What its worker goes by: where it is thinned, the one sampling in the other's place."""
        when_full = self.config.sampling_when_full
        if not self.thinned or when_full is None:
            return self.config
        return replace(self.config, sampling=when_full)

    @property
    def view(self) -> StreamView:
        """What clients see of it."""
        return StreamView(
            config=self.config,
            status=self.status,
            next_sequence=self.lane.next_sequence,
            last_score=self.last_score,
            created_seconds=self.created_seconds,
            thinned=self.thinned and self.can_be_thinned,
        )


def scored_span(score: WindowScore) -> ScoredSpan:
    """What the alert machine needs of a score."""
    return ScoredSpan(
        sequence=score.sequence,
        start_seconds=score.span.start_capture_seconds,
        end_seconds=score.span.end_capture_seconds,
        score=score.score,
        after_gap=score.span.number == 0,
        explanation=score.explanation,
        still=score.drop_reason is DropReason.STILL,
    )
