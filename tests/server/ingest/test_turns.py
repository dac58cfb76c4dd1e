"""Turns at decoding: how many at a time, in which order, and how long one takes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.ingest.turns import Turns


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_no_more_than_so_many_are_inside_and_all_come_to_their_turn(at_once: int) -> None:
    turns, guard = Turns(at_once), threading.Lock()
    inside, most = 0, 0

    def work() -> int:
        nonlocal inside, most
        done = 0
        for _ in range(200):
            with turns:
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0)
                with guard:
                    inside -= 1
            done += 1
        return done

    with ThreadPoolExecutor(8) as pool:
        assert sum(job.result() for job in [pool.submit(work) for _ in range(8)]) == 1600
    assert most == at_once
    assert turns.held_seconds == 0.0


def test_who_came_first_goes_first() -> None:
    turns, order = Turns(), []

    def work(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    with turns:
        for count, thread in enumerate(threads, 1):
            thread.start()
            while len(turns._waiting) < count:  # it stands in the queue
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_an_error_inside_gives_the_turn_on() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="broken"), turns:
        raise ValueError("broken")
    with turns:
        pass


def test_the_slowest_inside_tells_how_long() -> None:
    turns = Turns(2)
    assert turns.held_seconds == 0.0
    with turns:
        time.sleep(0.05)
        assert turns.held_seconds >= 0.05
    assert turns.held_seconds == 0.0


def test_others_get_in_while_one_that_is_inside_stays_outside() -> None:
    turns = Turns()
    with turns:
        with turns.outside(), ThreadPoolExecutor(1) as pool:
            pool.submit(turns.__enter__).result(timeout=10)
            assert turns.held_seconds > 0.0
            pool.submit(turns.__exit__).result(timeout=10)
        assert turns.held_seconds > 0.0
    assert turns.held_seconds == 0.0
