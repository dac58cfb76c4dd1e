"""The hub's laws, with publishers in threads and watchers in a loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.hub import Hub, HubFullError


@dataclass(frozen=True, slots=True)
class Item:
    stream_id: str
    number: int


async def drain(subscription) -> list[tuple[int, Item]]:
    return [entry async for entry in subscription]


@given(
    numbers=st.lists(st.sampled_from("ab"), max_size=40),
    capacity=st.integers(1, 10),
    wanted=st.sampled_from(["a", "b", None]),
)
def test_a_watcher_gets_the_newest_in_order_and_the_count_of_the_rest(
    numbers: list[str], capacity: int, wanted: str | None
) -> None:
    items = [Item(stream, n) for n, stream in enumerate(numbers)]
    matching = [item for item in items if wanted in (None, item.stream_id)]

    async def watch() -> list[tuple[int, Item]]:
        hub: Hub[Item] = Hub(capacity)
        async with hub.subscribe(wanted) as subscription:
            for item in items:
                hub.publish(item)
            hub.close()
            return await drain(subscription)

    received = asyncio.run(watch())
    assert [item for _, item in received] == matching[-capacity:]
    missed = max(0, len(matching) - capacity)
    assert [lost for lost, _ in received] == [missed, *[0] * (len(received) - 1)][: len(received)]


def test_items_from_many_threads_arrive_or_are_counted_and_keep_their_order() -> None:
    threads, each = 4, 5000

    async def watch() -> list[tuple[int, Item]]:
        hub: Hub[Item] = Hub(64)

        def publish(name: str) -> None:
            for number in range(each):
                hub.publish(Item(name, number))

        async def publish_all() -> None:
            work = [asyncio.to_thread(publish, str(n)) for n in range(threads)]
            await asyncio.gather(*work)
            hub.close()

        async with hub.subscribe() as subscription:
            publishing = asyncio.create_task(publish_all())
            received = await asyncio.wait_for(drain(subscription), timeout=30)
            await publishing
        return received

    received = asyncio.run(watch())
    assert len(received) + sum(missed for missed, _ in received) == threads * each
    for name in map(str, range(threads)):
        own = [item.number for _, item in received if item.stream_id == name]
        assert own == sorted(own)


def test_a_waiting_watcher_is_woken_from_a_thread() -> None:
    async def watch() -> tuple[int, Item]:
        hub: Hub[Item] = Hub()
        async with hub.subscribe() as subscription:
            waiting = asyncio.create_task(anext(subscription))
            await asyncio.sleep(0)  # until it waits
            threading.Thread(target=hub.publish, args=(Item("a", 1),)).start()
            return await asyncio.wait_for(waiting, timeout=10)

    assert asyncio.run(watch()) == (0, Item("a", 1))


def test_a_watcher_that_never_reads_holds_no_more_than_its_capacity() -> None:
    async def watch() -> int:
        hub: Hub[Item] = Hub(capacity=3)
        async with hub.subscribe() as idle, hub.subscribe() as reader:
            for number in range(1000):
                hub.publish(Item("a", number))
                assert await anext(reader) == (0, Item("a", number))
            missed, oldest = await anext(idle)
            assert oldest.number == 997
            return missed

    assert asyncio.run(watch()) == 997


def test_a_cancelled_watcher_leaves_the_hub() -> None:
    async def watch() -> int:
        hub: Hub[Item] = Hub()

        async def forever() -> None:
            async with hub.subscribe() as subscription:
                await anext(subscription)

        task = asyncio.create_task(forever())
        await asyncio.sleep(0)  # until it waits
        assert hub.subscriptions == 1
        task.cancel()
        await asyncio.wait([task])
        return hub.subscriptions

    assert asyncio.run(watch()) == 0


def test_a_watcher_whose_loop_has_gone_does_not_trouble_the_publisher() -> None:
    hub: Hub[Item] = Hub()
    place = hub.subscribe()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(place.__aenter__())
    loop.close()
    hub.publish(Item("a", 1))
    hub.close()


def test_places_for_watchers_are_bounded() -> None:
    async def watch() -> None:
        hub: Hub[Item] = Hub(max_subscriptions=1)
        async with hub.subscribe():
            with pytest.raises(HubFullError, match="all 1 places"):
                async with hub.subscribe():
                    pass
        async with hub.subscribe():
            assert hub.subscriptions == 1

    asyncio.run(watch())


def test_the_end_of_a_stream_ends_its_own_watches_alone() -> None:
    async def watch() -> None:
        hub: Hub[Item] = Hub()
        async with hub.subscribe("a") as of_a, hub.subscribe() as of_all:
            hub.publish(Item("a", 1))
            hub.end_stream("a")
            hub.publish(Item("a", 2))
            assert await drain(of_a) == [(0, Item("a", 1))]
            assert [await anext(of_all) for _ in range(2)] == [
                (0, Item("a", 1)),
                (0, Item("a", 2)),
            ]

    asyncio.run(watch())


def test_a_closed_hub_ends_watches_that_come_later_too() -> None:
    async def watch() -> list[tuple[int, Item]]:
        hub: Hub[Item] = Hub()
        hub.close()
        async with hub.subscribe() as subscription:
            return await asyncio.wait_for(drain(subscription), timeout=10)

    assert asyncio.run(watch()) == []


@pytest.mark.parametrize("bad", [{"capacity": 0}, {"max_subscriptions": 0}])
def test_a_hub_without_room_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        Hub(**bad)
