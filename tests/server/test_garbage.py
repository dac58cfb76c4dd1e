"""What lasts is kept from the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from server.garbage import set_aside


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


class Thing:
    """Something that a weak reference can watch."""

    def __init__(self) -> None:
        self.itself: Thing | None = None


def test_collections_look_only_at_what_was_made_since() -> None:
    lasting = [[] for _ in range(1000)]
    set_aside()
    assert gc.get_freeze_count() > len(lasting)
    young = [object for object in gc.get_objects() if object is lasting]
    assert not young


def test_loops_that_were_garbage_before_are_gone_and_later_ones_go_too() -> None:
    gone = []
    for _ in range(2):
        thing = Thing()
        thing.itself = thing
        gone.append(weakref.ref(thing))
        del thing
        set_aside()
        assert gone[-1]() is None
    later = Thing()
    later.itself = later
    watched = weakref.ref(later)
    del later
    gc.collect()
    assert watched() is None
