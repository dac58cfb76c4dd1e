"""The newest calibration of each stream, at rest."""

from __future__ import annotations

import logging
from dataclasses import replace

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from server.calibration import Calibration
from server.logs import about
from server.store.database import Database
from server.store.tables import CALIBRATIONS

_logger = logging.getLogger(__name__)

_JSON = TypeAdapter(Calibration)


class CalibrationStore:
    """Calibrations by stream. Every method raises `StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self) -> dict[str, Calibration]:
        """All of them; one that this version cannot read is logged and left out."""
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(CALIBRATIONS)).all()
        found = {}
        for row in rows:
            try:
                found[row.stream_id] = _JSON.validate_json(row.calibration)
            except ValidationError as error:  # another version's, or changed by hand
                _logger.error(
                    "its calibration is left out (%d faults); calibrate it again",
                    error.error_count(),
                    extra=about(row.stream_id),
                )
        return found

    def save(self, stream_id: str, calibration: Calibration) -> None:
        """Keep it in place of the one before, without its curve."""
        row = {
            "stream_id": stream_id,
            "made_seconds": calibration.made_seconds,
            "calibration": _JSON.dump_json(replace(calibration, curve=())).decode(),
        }
        with self._database.transaction() as connection:
            mine = CALIBRATIONS.c.stream_id == stream_id
            connection.execute(sa.delete(CALIBRATIONS).where(mine))
            connection.execute(sa.insert(CALIBRATIONS).values(row))
