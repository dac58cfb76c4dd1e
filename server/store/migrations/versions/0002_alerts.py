"""Alerts with their changes and deliveries, calibrations, the past of the scores."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the tables, and what a stream's owner may tune."""
    _tune_streams()
    _add_alerts()


def _tune_streams() -> None:
    with op.batch_alter_table("streams") as streams:
        streams.add_column(sa.Column("alerting", sa.Text, nullable=False, server_default="{}"))
        streams.add_column(sa.Column("evidence_mode", sa.String(16)))
        streams.add_column(sa.Column("masks", sa.Text, nullable=False, server_default="[]"))
    if sa.inspect(op.get_bind()).has_table("gvvad_schema"):
        op.drop_table("gvvad_schema")  # how versions before Alembic told theirs


def _add_alerts() -> None:
    op.create_table(
        "retired_streams",
        sa.Column("stream_id", sa.String(63), primary_key=True),
        sa.Column("next_sequence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "alerts",
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
    )
    op.create_index("alerts_by_start", "alerts", ["start_seconds", "alert_id"])
    op.create_index("alerts_by_stream", "alerts", ["stream_id", "start_seconds", "alert_id"])
    op.create_index("alerts_by_state", "alerts", ["state"])
    op.create_table(
        "alert_changes",
        sa.Column("position", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("alert_id", sa.String(16), nullable=False),
        sa.Column("stream_id", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("suppressed", sa.Boolean, nullable=False),
        sa.Column("changed_seconds", sa.Double, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_changes_by_alert", "alert_changes", ["alert_id"])
    op.create_table(
        "deliveries",
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
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_due", "deliveries", ["sink", "state", "due_seconds"])
    op.create_index("deliveries_by_alert", "deliveries", ["alert_id"])
    op.create_table(
        "calibrations",
        sa.Column("stream_id", sa.String(63), primary_key=True),
        sa.Column("made_seconds", sa.Double, nullable=False),
        sa.Column("calibration", sa.Text, nullable=False),
    )
    op.create_table(
        "score_history",
        sa.Column("chunk_id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("stream_id", sa.String(63), nullable=False),
        sa.Column("bundle_id", sa.String(64), nullable=False),
        sa.Column("start_seconds", sa.Double, nullable=False),
        sa.Column("end_seconds", sa.Double, nullable=False),
        sa.Column("windows", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("score_history_by_stream", "score_history", ["stream_id", "start_seconds"])
