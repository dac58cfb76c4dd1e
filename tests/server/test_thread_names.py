"""Threads have names that the system's own tools show."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from server.bundle import DEFAULT_BUNDLE, load_bundle
from server.engine.choice import choice_of, load_engine
from server.engine.flags import EngineFlags
from server.thread_names import ENGINE, thread_named


def names() -> list[str]:
    """Of all threads of this process."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return [(task / "comm").read_text().rstrip("\n") for task in tasks.iterdir()]


def own_name() -> str:
    return Path("/proc/thread-self/comm").read_text().rstrip("\n")


def test_a_thread_has_its_name_for_a_while() -> None:
    before = own_name()
    with thread_named("busy"):
        assert own_name() == "busy"
        assert names().count("busy") == 1
    assert own_name() == before


def test_a_thread_takes_the_name_of_the_one_that_starts_it() -> None:
    told: list[str] = []
    with thread_named("parent"):
        thread = threading.Thread(target=lambda: told.append(own_name()))
        thread.start()
        thread.join()
    assert told == ["parent"]


def test_threads_of_the_engine_are_told_from_the_others() -> None:
    with thread_named(ENGINE):
        engine = load_engine(load_bundle(DEFAULT_BUNDLE), choice_of(EngineFlags(threads=3), 1))
        engine.warm_up(1)
    # The third is this one, which has its own name again.
    assert names().count(ENGINE) == 2
