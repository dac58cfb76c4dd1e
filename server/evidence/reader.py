"""Evidence for clients: opened by an alert's id, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from server.alert_records import AlertRecord, EvidenceState
from server.evidence.files import EvidenceKind, evidence_path
from server.views import EvidencePendingError, NoEvidenceError

_WHY_NONE = {
    EvidenceState.NONE: "none is kept of it",
    EvidenceState.READY: "it was not among what is kept of it",
    EvidenceState.FAILED: "it could not be made; the server's log says why",
    EvidenceState.DELETED: "its retention has ended",
}


class EvidenceReader:
    """Opens files of evidence.

    Args:
        directory: where they are; None where none is kept.
        get: an alert by its id; raises UnknownAlertError.
    """

    def __init__(self, directory: Path | None, get: Callable[[str], AlertRecord]) -> None:
        self._directory = directory
        self._get = get

    def open(self, alert_id: str, kind: EvidenceKind) -> BinaryIO:
        """A file of an alert's evidence, for the caller to close.

        What is deleted while it is read can be read to its end.

        Raises:
            UnknownAlertError: there is no such alert.
            EvidencePendingError: the file is still being made.
            NoEvidenceError: there is none.
        """
        record = self._get(alert_id)
        if self._directory is not None:
            stream_id = record.alert.stream_id
            try:
                return evidence_path(self._directory, stream_id, alert_id, kind).open("rb")
            except FileNotFoundError:
                pass
        name, state = kind.name.lower(), record.evidence.state
        if state is EvidenceState.PENDING:
            raise EvidencePendingError(
                f"the {name} of alert {alert_id} is still being made; ask again once the alert "
                "is over, or wait for its change EVIDENCE"
            )
        raise NoEvidenceError(f"alert {alert_id} has no {name}: {_WHY_NONE[state]}")
