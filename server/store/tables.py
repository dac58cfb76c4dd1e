"""The tables as the newest migration leaves them; a test holds both against each other."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

# SQLite counts up by itself only in a column that is INTEGER to the letter.
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

STREAMS = sa.Table(
    "streams",
    METADATA,
    sa.Column("stream_id", sa.String(63), primary_key=True),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("transport", sa.String(16), nullable=False),
    sa.Column("open_threshold", sa.Double),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
    sa.Column("created_seconds", sa.Double, nullable=False),
    sa.Column("alerting", sa.Text, nullable=False, server_default="{}"),
    sa.Column("evidence_mode", sa.String(16)),
    sa.Column("masks", sa.Text, nullable=False, server_default="[]"),
    sa.Column("sampling", sa.String(32), nullable=False, server_default="every"),
    sa.Column("sampling_when_full", sa.String(32)),
    sa.Column("priority", sa.Integer, nullable=False, server_default="5"),
)
"""`alerting` and `masks` are JSON of `server.tuning`, samplings texts of `server.sampling`."""

RETIRED = sa.Table(
    "retired_streams",
    METADATA,
    sa.Column("stream_id", sa.String(63), primary_key=True),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
)
"""Streams that are gone, and the lowest sequence that they never used."""

ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("alert_id", sa.String(16), primary_key=True),
    sa.Column("stream_id", sa.String(63), nullable=False),
    sa.Column("bundle_id", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("first_sequence", sa.BigInteger, nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("start_seconds", sa.Double, nullable=False),
    sa.Column("end_seconds", sa.Double, nullable=False),
    sa.Column("peak_score", sa.Double, nullable=False),
    sa.Column("peak_seconds", sa.Double, nullable=False),
    sa.Column("explanation", sa.Text, nullable=False),
    sa.Column("end_reason", sa.String(16)),
    sa.Column("continues", sa.String(16)),
    sa.Column("suppression", sa.String(16)),
    sa.Column("window_scores", sa.LargeBinary, nullable=False),
    sa.Column("acknowledged_seconds", sa.Double),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Column("evidence", sa.Text, nullable=False, server_default="{}"),
    sa.Index("alerts_by_start", "start_seconds", "alert_id"),
    sa.Index("alerts_by_stream", "stream_id", "start_seconds", "alert_id"),
    sa.Index("alerts_by_state", "state"),
)
"""`explanation` and `evidence` are JSON, `window_scores` little-endian float32."""

ALERT_CHANGES = sa.Table(
    "alert_changes",
    METADATA,
    sa.Column("position", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("alert_id", sa.String(16), nullable=False),
    sa.Column("stream_id", sa.String(63), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("suppressed", sa.Boolean, nullable=False),
    sa.Column("changed_seconds", sa.Double, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Index("alert_changes_by_alert", "alert_id"),
    sqlite_autoincrement=True,
)
"""`record` is JSON of the alert after the change, without the windows' scores."""

DELIVERIES = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("delivery_id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("alert_id", sa.String(16), nullable=False),
    sa.Column("sink", sa.String(255), nullable=False),
    sa.Column("event_id", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_seconds", sa.Double, nullable=False),
    sa.Column("since_seconds", sa.Double, nullable=False),
    sa.Column("due_seconds", sa.Double, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.UniqueConstraint("position", "sink", name="one_delivery_a_sink"),
    sa.Index("deliveries_due", "sink", "state", "due_seconds"),
    sa.Index("deliveries_by_alert", "alert_id"),
    sqlite_autoincrement=True,
)
"""`since_seconds` is where the longest time to try begins: the creation, or the last replay."""

CALIBRATIONS = sa.Table(
    "calibrations",
    METADATA,
    sa.Column("stream_id", sa.String(63), primary_key=True),
    sa.Column("made_seconds", sa.Double, nullable=False),
    sa.Column("calibration", sa.Text, nullable=False),
)
"""`calibration` is JSON of `server.calibration`."""

SCORE_HISTORY = sa.Table(
    "score_history",
    METADATA,
    sa.Column("chunk_id", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("stream_id", sa.String(63), nullable=False),
    sa.Column("bundle_id", sa.String(64), nullable=False),
    sa.Column("start_seconds", sa.Double, nullable=False),
    sa.Column("end_seconds", sa.Double, nullable=False),
    sa.Column("windows", sa.LargeBinary, nullable=False),
    sa.Index("score_history_by_stream", "stream_id", "start_seconds"),
    sqlite_autoincrement=True,
)
"""Runs of scores of one stream; `windows` is packed by `server.store.history`.

The times are the server's own, at which it took the first and the last window.
"""
