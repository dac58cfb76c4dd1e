"""Metrics as Prometheus reads them."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.ingest.events import WorkerLoss
from server.telemetry import Telemetry
from tests.support.backend import MODEL

OF_STREAMS = {
    "gvvad_stream_up",
    "gvvad_stream_last_frame_timestamp_seconds",
    "gvvad_stream_score",
    "gvvad_frames_decoded_total",
    "gvvad_windows_scored_total",
    "gvvad_windows_dropped_total",
    "gvvad_stream_reconnects_total",
    "gvvad_alerts_total",
    "gvvad_alerts_open",
}
OF_THE_SERVER = {
    "gvvad_window_latency_seconds_bucket",
    "gvvad_stage_duration_seconds_bucket",
    "gvvad_batch_size_bucket",
    "gvvad_decode_worker_restarts_total",
    "gvvad_engine_batch_growths_total",
    "gvvad_engine_batch_shrinks_total",
    "gvvad_model_info",
    "gvvad_build_info",
}


def samples(telemetry: Telemetry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(generate_latest(telemetry.registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return samples(telemetry).get((name, frozenset(labels.items())))


def busy(*stream_ids: str) -> Telemetry:
    telemetry = Telemetry()
    for stream_id in stream_ids:
        telemetry.stream_up(stream_id, True)
        telemetry.frames(stream_id, 32, 1_700_000_000.5)
        telemetry.window_scored(stream_id, 0.75, 0.04)
        telemetry.window_dropped(stream_id, "overload")
        telemetry.window_dropped(stream_id, "backlog")
        telemetry.reconnected(stream_id, "stale")
        telemetry.alert_opened(stream_id)
    return telemetry


def test_every_metric_has_its_name_and_its_value() -> None:
    telemetry = busy("door")
    telemetry.frames("door", 8, None)
    telemetry.alert_opened("door")
    telemetry.alert_closed("door")
    expected = {
        "gvvad_stream_up": 1,
        "gvvad_stream_last_frame_timestamp_seconds": 1_700_000_000.5,
        "gvvad_stream_score": 0.75,
        "gvvad_frames_decoded_total": 40,
        "gvvad_windows_scored_total": 1,
        "gvvad_alerts_total": 2,
        "gvvad_alerts_open": 1,
    }
    assert {name: value(telemetry, name, stream="door") for name in expected} == expected
    assert value(telemetry, "gvvad_windows_dropped_total", stream="door", reason="overload") == 1
    assert value(telemetry, "gvvad_stream_reconnects_total", stream="door", reason="stale") == 1


def test_times_and_sizes_are_histograms() -> None:
    telemetry = busy("door")
    telemetry.stage("encode", 0.011)
    telemetry.batch(3)
    assert value(telemetry, "gvvad_window_latency_seconds_bucket", le="0.05") == 1
    assert value(telemetry, "gvvad_window_latency_seconds_bucket", le="0.03") == 0
    assert value(telemetry, "gvvad_stage_duration_seconds_sum", stage="encode") == 0.011
    assert value(telemetry, "gvvad_batch_size_sum") == 3


def test_replaced_workers_are_counted_from_zero() -> None:
    telemetry = Telemetry()
    telemetry.worker_lost(WorkerLoss.MEMORY)
    name = "gvvad_decode_worker_restarts_total"
    assert [value(telemetry, name, reason=why) for why in ("ended", "hung", "memory")] == [0, 0, 1]


def test_halved_and_doubled_batches_are_counted_from_zero() -> None:
    telemetry = Telemetry()
    names = ("gvvad_engine_batch_shrinks_total", "gvvad_engine_batch_growths_total")
    assert [value(telemetry, name) for name in names] == [0, 0]
    telemetry.batch_resized(8, 4)
    assert [value(telemetry, name) for name in names] == [1, 0]
    telemetry.batch_resized(4, 8)
    assert [value(telemetry, name) for name in names] == [1, 1]


def test_the_names_are_those_that_dashboards_know() -> None:
    telemetry = busy("door")
    telemetry.stage("encode", 0.011)
    telemetry.batch(3)
    telemetry.model(MODEL)
    names = {name for name, _ in samples(telemetry)}
    assert names >= OF_STREAMS | OF_THE_SERVER
    assert "process_resident_memory_bytes" in names
    assert not [name for name in names if name.endswith("_created")]
    labels = {"bundle": MODEL.bundle_id, "encoder": "tiny"}
    labels |= {"engine": "onnxruntime", "precision": "fp32"}
    assert value(telemetry, "gvvad_model_info", **labels) == 1


def test_only_one_model_is_served_at_a_time() -> None:
    telemetry = Telemetry()
    telemetry.model(MODEL)
    telemetry.model(replace(MODEL, bundle_id="cd" * 32))
    bundles = [dict(labels)["bundle"] for name, labels in samples(telemetry) if "model" in name]
    assert bundles == ["cd" * 32]


def test_a_stream_that_never_ran_counts_from_zero() -> None:
    telemetry = Telemetry()
    telemetry.stream_up("door", False)
    for name in ("gvvad_stream_up", "gvvad_alerts_total", "gvvad_windows_scored_total"):
        assert value(telemetry, name, stream="door") == 0
    assert value(telemetry, "gvvad_stream_score", stream="door") is None


def test_a_removed_stream_takes_all_its_series_along() -> None:
    telemetry = busy("door", "hall")
    telemetry.forget("door")
    left = {dict(labels).get("stream") for _, labels in samples(telemetry)}
    assert left == {"hall", None}
    telemetry.forget("ghost")


def test_two_servers_in_a_process_share_nothing() -> None:
    busy("door")
    assert value(Telemetry(), "gvvad_stream_up", stream="door") is None
