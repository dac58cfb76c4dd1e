"""Streams, as versions before Alembic had them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table of streams."""
    op.create_table(
        "streams",
        sa.Column("stream_id", sa.String(63), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("transport", sa.String(16), nullable=False),
        sa.Column("open_threshold", sa.Double),
        sa.Column("next_sequence", sa.BigInteger, nullable=False),
        sa.Column("created_seconds", sa.Double, nullable=False),
    )
