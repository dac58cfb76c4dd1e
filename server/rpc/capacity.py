"""The account of what streams take, to a message and back."""

from __future__ import annotations

from gvvad.v1 import model_pb2

from server.capacity import CapacitySummary


def capacity_message(found: CapacitySummary) -> model_pb2.Capacity:
    """The account as the API shows it."""
    return model_pb2.Capacity(
        cores=found.cores,
        decode_cores=found.decode_cores,
        encode_cores=found.encode_cores,
        rest_cores=found.rest_cores,
        used_ratio=found.used_ratio,
        streams=found.streams,
        thinned=found.thinned,
        streams_estimated=found.streams_estimated,
        enforced=found.enforced,
    )


def capacity_summary(message: model_pb2.Capacity) -> CapacitySummary:
    """The account as the API showed it."""
    bounded = message.HasField("streams_estimated")
    return CapacitySummary(
        cores=message.cores,
        decode_cores=message.decode_cores,
        encode_cores=message.encode_cores,
        rest_cores=message.rest_cores,
        used_ratio=message.used_ratio,
        streams=message.streams,
        thinned=message.thinned,
        streams_estimated=message.streams_estimated if bounded else None,
        enforced=message.enforced,
    )
