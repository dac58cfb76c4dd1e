"""ReadEvidence: a file of an alert's evidence, in pieces."""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

import grpc
from gvvad.v1 import alert_pb2

from server.evidence.files import EvidenceKind
from server.evidence.reader import EvidenceReader
from server.rpc.wire import InvalidError
from server.streams import shown

PIECE_BYTES = 256 * 1024

KIND = {
    EvidenceKind.SNAPSHOT: alert_pb2.EVIDENCE_KIND_SNAPSHOT,
    EvidenceKind.CLIP: alert_pb2.EVIDENCE_KIND_CLIP,
}
_KIND_OF = {value: key for key, value in KIND.items()}
_ALERT_ID = re.compile(r"[0-9a-f]{16}")


class EvidenceBackend(Protocol):
    """What the call needs of the server."""

    @property
    def evidence(self) -> EvidenceReader: ...


async def read_evidence(
    backend: EvidenceBackend,
    request: alert_pb2.ReadEvidenceRequest,
    context: grpc.aio.ServicerContext[
        alert_pb2.ReadEvidenceRequest, alert_pb2.ReadEvidenceResponse
    ],
) -> None:
    """Send the file that is asked for.

    Raises:
        InvalidError: no alert's id, or no kind of evidence.
        UnknownAlertError, EvidencePendingError, NoEvidenceError: as the reader.
    """
    if not _ALERT_ID.fullmatch(request.alert_id):
        raise InvalidError(
            f"alert_id ({shown(request.alert_id)[:80]!r}) must be 16 of 0-9 and a-f, as alerts "
            "have it"
        )
    if request.kind not in _KIND_OF:
        raise InvalidError(
            f"kind ({request.kind}) must be EVIDENCE_KIND_SNAPSHOT (1) or EVIDENCE_KIND_CLIP (2)"
        )
    kind = _KIND_OF[request.kind]
    with await asyncio.to_thread(backend.evidence.open, request.alert_id, kind) as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            await context.write(alert_pb2.ReadEvidenceResponse(data=piece))
