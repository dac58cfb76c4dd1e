"""The API's service of deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc
from gvvad.v1 import delivery_pb2, delivery_pb2_grpc

from server.delivery_records import Delivery, DeliveryFilter
from server.rpc import delivery_messages


class DeliveryLog(Protocol):
    """What the service needs of the server: `server.delivery.deliveries.Deliveries`."""

    @property
    def sinks(self) -> Sequence[str]: ...

    async def list(
        self, wanted: DeliveryFilter, size: int, after: int | None
    ) -> tuple[list[Delivery], int | None]: ...

    async def replay(self, ids: Sequence[int], sink: str | None) -> int: ...


class DeliveryService(delivery_pb2_grpc.DeliveryServiceServicer):
    """Lists deliveries and tries them again."""

    def __init__(self, deliveries: DeliveryLog) -> None:
        self._deliveries = deliveries

    async def ListDeliveries(  # noqa: N802  the API's name
        self,
        request: delivery_pb2.ListDeliveriesRequest,
        context: grpc.aio.ServicerContext[
            delivery_pb2.ListDeliveriesRequest, delivery_pb2.ListDeliveriesResponse
        ],
    ) -> delivery_pb2.ListDeliveriesResponse:
        page = delivery_messages.page(request)
        found, after = await self._deliveries.list(page.wanted, page.size, page.after)
        return delivery_pb2.ListDeliveriesResponse(
            deliveries=[delivery_messages.delivery_message(one) for one in found],
            next_page_token=delivery_messages.page_token(after),
        )

    async def ReplayDeliveries(  # noqa: N802
        self,
        request: delivery_pb2.ReplayDeliveriesRequest,
        context: grpc.aio.ServicerContext[
            delivery_pb2.ReplayDeliveriesRequest, delivery_pb2.ReplayDeliveriesResponse
        ],
    ) -> delivery_pb2.ReplayDeliveriesResponse:
        ids = delivery_messages.replayed_ids(request)
        sink = delivery_messages.replayed_sink(request, self._deliveries.sinks)
        return delivery_pb2.ReplayDeliveriesResponse(
            replayed=await self._deliveries.replay(ids, sink)
        )
