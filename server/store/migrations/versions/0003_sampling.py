"""Which windows of a stream are scored, and which stream comes first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Score every window of the streams that are there, none before another."""
    with op.batch_alter_table("streams") as streams:
        streams.add_column(
            sa.Column("sampling", sa.String(32), nullable=False, server_default="every")
        )
        streams.add_column(sa.Column("sampling_when_full", sa.String(32)))
        streams.add_column(sa.Column("priority", sa.Integer, nullable=False, server_default="5"))
