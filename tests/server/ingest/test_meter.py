"""What a stream's thread counts."""

from __future__ import annotations

from server.ingest.meter import Meter


def test_packets_without_a_frame_count_from_the_first_of_them() -> None:
    meter = Meter("cam")
    meter.begin_session()
    assert [meter.count_packet(at, 0.0) for at in (10.0, 12.0, 15.5)] == [0.0, 2.0, 5.5]
    meter.count_frame(15.5)
    assert meter.count_packet(15.6, 0.0) == 0.0


def test_a_pause_of_the_source_is_no_time_without_a_frame() -> None:
    meter = Meter("cam")
    meter.begin_session()
    meter.count_packet(10.0, 0.0)
    meter.count_frame(10.0)
    # The camera, or this machine, stood still; the packet's own frame is counted after it.
    assert meter.count_packet(19.0, 0.0) == 0.0
    meter.count_frame(19.0)
    assert meter.count_packet(19.1, 0.0) == 0.0


def test_another_session_begins_anew() -> None:
    meter = Meter("cam")
    meter.begin_session()
    meter.count_packet(10.0, 0.0)
    meter.begin_session()
    assert meter.count_packet(90.0, 0.0) == 0.0
