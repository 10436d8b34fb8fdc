"""Objects that a process visits at a fork and at its end."""

from __future__ import annotations

import threading

from milepost.forks import Instances
from milepost.testing.conformance.concurrency import frequent_switches


class Thing:
    """Something to keep."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing)

    def __hash__(self) -> int:
        return 0


def test_threads_add_while_another_one_iterates() -> None:
    """A fork while a thread opened a connection failed with "set changed size during iteration"."""
    things: Instances[Thing] = Instances()
    kept = [Thing(), Thing()]
    for thing in kept:
        things.add(thing)
    end = threading.Event()

    def add_and_drop() -> None:
        while not end.is_set():
            made = [Thing() for _ in range(20)]
            for thing in made:
                things.add(thing)

    threads = [threading.Thread(target=add_and_drop) for _ in range(3)]
    with frequent_switches():
        for thread in threads:
            thread.start()
        for _ in range(2000):
            found = [id(thing) for thing in things]
            assert {id(thing) for thing in kept} <= set(found)
        end.set()
        for thread in threads:
            thread.join()
    assert [id(thing) for thing in things] == [id(thing) for thing in kept], "others are not kept alive"
