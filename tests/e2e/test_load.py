"""Four cameras at once: the promise of README, measured and printed."""

from __future__ import annotations

import pytest

from tests.bench.four_cameras import describe, measure


@pytest.mark.long
@pytest.mark.quiet
@pytest.mark.rtsp
def test_four_cameras_keep_their_latency_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    load = measure(cameras=4, seconds=30)
    with capsys.disabled():
        print(f"\n{describe(load)}")
    assert load.dropped == 0
    assert load.holds, describe(load)
