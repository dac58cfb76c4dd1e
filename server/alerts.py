"""What alerts are, and by which policy scores become some; pure.

`server.alert_machine` applies the policy.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import Enum

from server.bank import Explanation
from server.schedule import NEVER_QUIET, Schedule
from server.tuning import AlertTuning

CLOSE_RATIO = 0.8
"""Default close threshold as a share of the open threshold."""

MIN_DURATION_SECONDS = 2.0
"""Default minimum duration: one window of the embedded default is not an event yet."""

MERGE_GAP_SECONDS = 5.0
"""Default merge gap: somebody steps behind a pillar and out again, about four windows of the
embedded default. It ends no alert earlier and dates no end later; it is only told later."""

MAX_DURATION_SECONDS = 3600.0
"""Default maximum duration: a camera that was knocked askew says so once an hour, not never."""

COOLDOWN_SECONDS = 0.0
"""Default cooldown: what keeps alerts from people must have been asked for."""


class AlertState(Enum):
    """Whether an alert still goes on."""

    OPEN = "open"
    CLOSED = "closed"


class EndReason(Enum):
    """Why an alert ended."""

    SCORE_FELL = "score_fell"  # and stayed low for the merge gap
    GAP = "gap"  # the stream broke off
    SPLIT = "split"  # it had reached the maximum duration; another continues it
    STOPPED = "stopped"  # the stream was deleted or the server stopped in good order
    LOST = "lost"  # the server was killed while it went on
    CLOCK_SET = "clock_set"


class Suppression(Enum):
    """Why an alert is kept but delivered to nobody."""

    COOLDOWN = "cooldown"
    QUIET_HOURS = "quiet_hours"
    SNOOZED = "snoozed"


class PolicyError(ValueError):
    """A stream's tuning does not go with its threshold; the message is the client's sentence."""


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """When an event opens, counts and ends, and when its alert is delivered to nobody.

    All lengths are seconds of capture time.

    Attributes:
        open_threshold: score in [0, 1] at or above which an event opens.
        close_threshold: score below which it begins to end, at most `open_threshold`.
        min_duration_seconds: that an event must span to become an alert.
        merge_gap_seconds: scores stay below `close_threshold` for so long before an alert ends.
        max_duration_seconds: an alert that would last longer is split.
        cooldown_seconds: after the end of a delivered alert, in which none that begins is
            delivered.
        schedule: quiet hours and snooze, in which none that begins is delivered either.

    Raises:
        ValueError: one of them is out of its range.
    """

    open_threshold: float
    close_threshold: float
    min_duration_seconds: float
    merge_gap_seconds: float = 0.0
    max_duration_seconds: float = math.inf
    cooldown_seconds: float = 0.0
    schedule: Schedule = NEVER_QUIET

    def __post_init__(self) -> None:
        if not 0 <= self.close_threshold <= self.open_threshold <= 1:
            raise ValueError(
                f"thresholds must be 0 <= close ({self.close_threshold}) "
                f"<= open ({self.open_threshold}) <= 1"
            )
        for name in ("min_duration", "merge_gap", "max_duration", "cooldown"):
            value: float = getattr(self, f"{name}_seconds")
            if not value >= 0:
                raise ValueError(f"{name}_seconds ({value}) must be >= 0")


@dataclass(frozen=True, slots=True)
class AlertDefaults:
    """What holds where a stream is not tuned.

    Attributes:
        close_ratio: close threshold as a share of the open threshold, over 0 and at most 1.
        min_duration_seconds: as in `AlertPolicy`.
        merge_gap_seconds: as in `AlertPolicy`.
        max_duration_seconds: as in `AlertPolicy`.
        cooldown_seconds: as in `AlertPolicy`.
    """

    close_ratio: float = CLOSE_RATIO
    min_duration_seconds: float = MIN_DURATION_SECONDS
    merge_gap_seconds: float = MERGE_GAP_SECONDS
    max_duration_seconds: float = MAX_DURATION_SECONDS
    cooldown_seconds: float = COOLDOWN_SECONDS

    def policy(self, open_threshold: float, tuning: AlertTuning) -> AlertPolicy:
        """The defaults with what a stream tunes of them.

        Args:
            open_threshold: the stream's own or the bundle's, in [0, 1].
            tuning: of the stream.

        Raises:
            PolicyError: the stream's close threshold lies above the open one.
        """
        close_threshold = tuning.close_threshold
        if close_threshold is None:
            close_threshold = self.close_ratio * open_threshold
        if close_threshold > open_threshold:
            raise PolicyError(
                f"close_threshold ({close_threshold:g}) must be at most the open threshold, which "
                f"is {open_threshold:g} here; lower the one or raise the other"
            )
        return AlertPolicy(
            open_threshold,
            close_threshold,
            _first(tuning.min_duration_seconds, self.min_duration_seconds),
            _first(tuning.merge_gap_seconds, self.merge_gap_seconds),
            _first(tuning.max_duration_seconds, self.max_duration_seconds),
            _first(tuning.cooldown_seconds, self.cooldown_seconds),
            Schedule(tuning.quiet_hours, tuning.snooze_until_seconds),
        )


@dataclass(frozen=True, slots=True)
class ScoredSpan:
    """What the state machine sees of a window.

    Attributes:
        sequence: the window's number in its stream, rising for ever.
        start_seconds: UTC capture time of the first frame.
        end_seconds: UTC capture time of the last frame.
        score: in [0, 1]; None where the window was dropped.
        after_gap: the window begins after a gap, so an open event ends before it.
        explanation: the nearest sentences of the bundle's bank.
        still: it was not scored since nothing moved in it.
    """

    sequence: int
    start_seconds: float
    end_seconds: float
    score: float | None
    after_gap: bool
    explanation: Explanation = ()
    still: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """A run of scores over the threshold, as it leaves the system.

    Attributes:
        alert_id: 16 hex digits, a hash of stream, bundle and first sequence.
        stream_id: the stream it happened on.
        bundle_id: the bundle that scored it.
        state: OPEN, then once CLOSED.
        first_sequence: window that opened the event, or that follows the split.
        last_sequence: newest window that belongs to it.
        start_seconds: UTC capture time at which the first window begins.
        end_seconds: UTC capture time at which the last window ends.
        peak_score: highest score so far, in [0, 1].
        peak_seconds: UTC capture time at which the peak's window ends.
        explanation: the nearest sentences to that window, nearest first.
        end_reason: why it ended; None while it goes on.
        continues: the alert that this one goes on from after a split.
        suppression: why it is delivered to nobody; None delivers it.
        window_scores: one for each sequence from first to last, NaN where a window was
            dropped; as of this change.
    """

    alert_id: str
    stream_id: str
    bundle_id: str
    state: AlertState
    first_sequence: int
    last_sequence: int
    start_seconds: float
    end_seconds: float
    peak_score: float
    peak_seconds: float
    explanation: Explanation = ()
    end_reason: EndReason | None = None
    continues: str | None = None
    suppression: Suppression | None = None
    window_scores: tuple[float, ...] = ()

    @property
    def is_closed(self) -> bool:
        return self.state is AlertState.CLOSED

    @property
    def remarks(self) -> str:
        """Why it ended and why nobody is told, in brackets: " (split, not delivered: snoozed)"."""
        found = []
        if self.end_reason not in (None, EndReason.SCORE_FELL):
            found.append(self.end_reason.value.replace("_", " "))
        if self.suppression is not None:
            found.append(f"not delivered: {self.suppression.value.replace('_', ' ')}")
        return f" ({', '.join(found)})" if found else ""


def alert_id(stream_id: str, bundle_id: str, first_sequence: int) -> str:
    """Identity of an alert: the same event always has the same id."""
    identity = f"{stream_id}\n{bundle_id}\n{first_sequence}".encode()
    return hashlib.sha256(identity).hexdigest()[:16]


def _first(own: float | None, default: float) -> float:
    return default if own is None else own
