"""Evidence as clients get it: ReadEvidence, `gvvad alerts evidence`, masks and modes of streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from gvvad.v1 import alert_pb2, alert_pb2_grpc

from server.alert_records import Evidence, EvidenceState
from server.cli import main
from server.evidence.files import EvidenceKind, delete_files, evidence_path, new_file
from server.evidence.reader import EvidenceReader
from server.rpc.client import ClientError
from server.rpc.evidence_service import PIECE_BYTES
from server.tuning import EvidenceMode, Mask
from tests.support.backend import MemoryBackend, an_alert
from tests.support.evidence import MemoryLog
from tests.support.served import Served, loop_in_thread, serving

ALERT = an_alert("cam")
CLIP = bytes(range(256)) * 4096  # several pieces
SNAPSHOT = b"\xff\xd8 a picture"


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    made.add(ALERT)
    return made


@pytest.fixture
def served(tmp_path: Path, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    backend = MemoryBackend()
    backend.evidence = EvidenceReader(tmp_path / "kept", log.get)
    (tmp_path / "kept").mkdir()
    with loop_in_thread() as run, serving(run, backend) as one:
        monkeypatch.setenv("GVVAD_SERVER", one.address)
        yield one


def put(tmp_path: Path, kind: EvidenceKind, content: bytes) -> None:
    with new_file(evidence_path(tmp_path / "kept", "cam", ALERT.alert_id, kind)) as file:
        file.write(content)


def read(served: Served, kind: EvidenceKind, alert_id: str = ALERT.alert_id) -> bytes:
    return b"".join(served.client().read_evidence(alert_id, kind))


def refusal(served: Served, kind: EvidenceKind, alert_id: str = ALERT.alert_id) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        read(served, kind, alert_id)
    return refused.value.code, refused.value.sentence


def test_a_file_comes_whole_in_pieces_of_their_size(served: Served, tmp_path: Path) -> None:
    put(tmp_path, EvidenceKind.CLIP, CLIP)
    pieces = list(served.client().read_evidence(ALERT.alert_id, EvidenceKind.CLIP))
    assert b"".join(pieces) == CLIP
    assert [len(piece) for piece in pieces] == [PIECE_BYTES] * 4


def test_each_way_of_having_none_is_told_apart(
    served: Served, log: MemoryLog, tmp_path: Path
) -> None:
    code, sentence = refusal(served, EvidenceKind.CLIP)
    assert (code, "none is kept" in sentence) == ("NOT_FOUND", True)
    for state, expected, words in (
        (EvidenceState.PENDING, "FAILED_PRECONDITION", "still being made"),
        (EvidenceState.FAILED, "NOT_FOUND", "could not be made"),
        (EvidenceState.DELETED, "NOT_FOUND", "retention has ended"),
        (EvidenceState.READY, "NOT_FOUND", "not among what is kept"),
    ):
        log.set_evidence(ALERT.alert_id, Evidence(state))
        code, sentence = refusal(served, EvidenceKind.CLIP)
        assert (code, words in sentence) == (expected, True)
    assert refusal(served, EvidenceKind.CLIP, "f" * 16)[0] == "NOT_FOUND"


def test_a_picture_of_an_alert_that_goes_on_can_be_read(
    served: Served, log: MemoryLog, tmp_path: Path
) -> None:
    put(tmp_path, EvidenceKind.SNAPSHOT, SNAPSHOT)
    log.set_evidence(ALERT.alert_id, Evidence(EvidenceState.PENDING, len(SNAPSHOT)))
    assert read(served, EvidenceKind.SNAPSHOT) == SNAPSHOT


def test_a_file_that_is_deleted_meanwhile_is_read_to_its_end(
    served: Served, tmp_path: Path
) -> None:
    put(tmp_path, EvidenceKind.CLIP, CLIP)
    pieces = served.client().read_evidence(ALERT.alert_id, EvidenceKind.CLIP)
    first = next(pieces)
    delete_files(tmp_path / "kept", "cam", ALERT.alert_id)
    assert first + b"".join(pieces) == CLIP
    assert refusal(served, EvidenceKind.CLIP)[0] == "NOT_FOUND"


@pytest.mark.parametrize("alert_id", ["", "../../../etc/passwd", "0123456789abcde/", "x" * 16])
def test_what_is_no_id_is_refused(served: Served, alert_id: str) -> None:
    code, sentence = refusal(served, EvidenceKind.CLIP, alert_id)
    assert (code, "16 of 0-9 and a-f" in sentence) == ("INVALID_ARGUMENT", True)


def test_a_kind_that_is_none_is_refused(served: Served) -> None:
    request = alert_pb2.ReadEvidenceRequest(alert_id=ALERT.alert_id)
    with grpc.insecure_channel(served.address) as channel:
        call = alert_pb2_grpc.AlertServiceStub(channel).ReadEvidence(request)
        with pytest.raises(grpc.RpcError, match="EVIDENCE_KIND_SNAPSHOT"):
            next(call)


def test_the_command_saves_what_there_is(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, EvidenceKind.SNAPSHOT, SNAPSHOT)
    out = tmp_path / "out"
    command = ["alerts", "evidence", ALERT.alert_id, "--out", str(out), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == [str(out / f"{ALERT.alert_id}.jpg")]
    put(tmp_path, EvidenceKind.CLIP, CLIP)
    assert main(command[:-1]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(out / f"{ALERT.alert_id}{kind.value}") for kind in EvidenceKind
    ]
    assert (out / f"{ALERT.alert_id}.mp4").read_bytes() == CLIP
    assert sorted(path.suffix for path in out.iterdir()) == [".jpg", ".mp4"]


def test_the_command_says_why_there_is_nothing(
    served: Served, log: MemoryLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["alerts", "evidence", ALERT.alert_id, "--out", str(out)]
    assert main(command) == 2
    assert "none is kept" in capsys.readouterr().err
    put(tmp_path, EvidenceKind.SNAPSHOT, SNAPSHOT)
    log.set_evidence(ALERT.alert_id, Evidence(EvidenceState.PENDING, len(SNAPSHOT)))
    assert main(command) == 2
    shown = capsys.readouterr()
    assert shown.out.strip() == str(out / f"{ALERT.alert_id}.jpg")
    assert "still being made" in shown.err


def test_the_command_line_sets_masks_and_modes(served: Served) -> None:
    url = "rtsp://127.0.0.1/cam"
    triangle, corner = "0,0 1,0 0.5,0.25", "0,0.5 0.5,1 0,1"
    assert main(["streams", "add", "cam", url, "--mask", triangle, "--evidence", "blur"]) == 0
    config = served.backend.views["cam"].config
    assert config.masks == (Mask(((0, 0), (1, 0), (0.5, 0.25))),)
    assert config.evidence_mode is EvidenceMode.BLUR
    assert main(["streams", "update", "cam", "--mask", corner, "--mask", triangle]) == 0
    assert [len(mask.corners) for mask in served.backend.views["cam"].config.masks] == [3, 3]
    assert main(["streams", "update", "cam", "--no-masks", "--evidence", "keep"]) == 0
    config = served.backend.views["cam"].config
    assert (config.masks, config.evidence_mode) == ((), EvidenceMode.KEEP)
    assert main(["streams", "update", "cam", "--threshold", "0.5"]) == 0
    assert served.backend.views["cam"].config == replace(config, open_threshold=0.5)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mask", "0,0 1,0"], "3 to 64"),
        (["--mask", "0,0 1,0 2,2"], "must lie in 0 to 1"),
        (["--mask", "0,0 1,0 nonsense"], "each X,Y"),
        (["--mask", "0,0 1,0 0,1", "--no-masks"], "leave one of them out"),
    ],
)
def test_masks_that_are_none_are_one_sentence(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["streams", "update", "cam", *flags]) == 2
    assert words in capsys.readouterr().err
