"""Killed at random under a receiver that fails half the time: nothing is lost or renamed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.webhook_receiver import Receiver, fails_half_the_time, receiving

SECRET = b"a secret of twenty-four bytes and more"
ALERTS = 120
KILLS = 10


def run(directory: Path, receiver: Receiver, seconds: float | None) -> tuple[list[str], int]:
    """Ids that the program said were owed, and how it ended."""
    command = [sys.executable, "-m", "tests.support.outbox_program"]
    database, secrets = f"sqlite:///{directory}/alerts.db", directory / "secrets"
    secrets.write_bytes(SECRET)
    with subprocess.Popen(
        [*command, database, receiver.url, str(secrets), str(ALERTS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        if seconds is not None:
            lines.append(process.stdout.readline())  # once it is under way
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
        out, err = process.communicate(timeout=100)
    assert "Traceback" not in err, err
    lines += out.splitlines()
    return [line.split()[1] for line in lines if line.startswith("owed ")], process.returncode


@pytest.mark.long
def test_a_server_that_is_killed_delivers_everything_under_one_id_in_order(tmp_path: Path) -> None:
    rng = random.Random(8)
    owed: list[str] = []
    with receiving(fails_half_the_time(rng)) as receiver:
        for _ in range(KILLS):
            told, code = run(tmp_path, receiver, rng.uniform(0.02, 0.5))
            owed += told
            assert code == -9
        told, code = run(tmp_path, receiver, None)
        owed += told
        assert code == 0
    taken = [request.event["id"] for request in receiver.taken]
    assert set(owed) <= set(taken), "what was written down is delivered"
    assert len(set(taken)) == 2 * ALERTS
    bodies: dict[str, set[bytes]] = {}
    for request in receiver.requests:
        assert request.is_signed_with(SECRET)
        bodies.setdefault(request.event["id"], set()).add(request.body)
    assert {len(said) for said in bodies.values()} == {1}, "one id never says two things"
    assert len({(one.alert, one.kind) for one in receiver.taken}) == len(set(taken)), "one id each"
    for alert in {request.alert for request in receiver.taken}:
        kinds = [request.kind for request in receiver.taken if request.alert == alert]
        assert kinds.index("closed") > len(kinds) - 1 - kinds[::-1].index("opened"), kinds
