"""Other items than in the last attempt: what is refused, what the error says, and what continues."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from milepost import InputChangedError
from milepost.testing import FakeRun, fake_run
from tests.run.resumed_run import resumed


class Away(Exception):
    """What interrupts an attempt."""


@dataclass
class Page:
    """An item that the handler may change."""

    name: str
    words: list[str] = field(default_factory=list)


KINDS: dict[str, Callable[[str], Any]] = {
    "text": str,
    "dict": lambda name: {"name": name, "words": []},
    "list": lambda name: [name, []],
    "tuple": lambda name: (name, []),
    "set": lambda name: {name},
    "dataclass": Page,
}


def change(item: Any) -> None:
    """Change an item as a handler does that collects something in it."""
    if isinstance(item, dict):
        item["words"].append("new")
    elif isinstance(item, Page):
        item.words.append("new")
    elif isinstance(item, set):
        item.add("new")
    elif not isinstance(item, str):
        item[1].append("new")


async def left_in_progress(
    items: list[Any], at: str, how: str, *, fails: bool = True, run: FakeRun | None = None
) -> Any:
    """Return the run of the next attempt, after an error at an item that was changed; or the items that were reached."""
    run = run or fake_run()
    reached: list[Any] = []

    def work(item: Any) -> None:
        reached.append(item)
        change(item)
        if fails and at in str(item):
            raise Away

    options: dict[str, Any] = {"resume": True, "batch": 2 if "batch" in how else None}
    with contextlib.suppress(Away):
        if "async" in how:
            async for found in run.each(items, **options):
                for item in found if "batch" in how else [found]:
                    work(item)
        else:
            for found in run.each(items, **options):
                for item in found if "batch" in how else [found]:
                    work(item)
    return resumed(run) if fails else reached


@pytest.mark.parametrize("how", ["sync", "async", "sync batch", "async batch"])
@pytest.mark.parametrize("kind", KINDS)
async def test_other_item_in_progress_is_refused_also_if_the_code_can_change_it(kind: str, how: str) -> None:
    """After an error between two heartbeats, a list in another order continued with other items."""
    made = KINDS[kind]
    names = ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt", "f.txt"]
    again = await left_in_progress([*map(made, names)], "c.txt", how)
    with pytest.raises(
        InputChangedError, match=r"item 3 was .*c\.txt.* in the last attempt, now it is .*d\.txt"
    ) as refused:
        await left_in_progress(
            [*map(made, ["b.txt", "a.txt", "d.txt", "c.txt", "f.txt", "e.txt"])], "", how, fails=False, run=again
        )
    assert "new" not in str(refused.value), "the item was kept as the handler had left it"
    again = await left_in_progress([*map(made, names)], "c.txt", how)
    reached = await left_in_progress([*map(made, names)], "", how, fails=False, run=again)
    assert [name for name in names if any(name in str(item) for item in reached)] == names[2:]


async def test_total_that_changed_names_the_item_in_progress_and_no_earlier_one() -> None:
    pages = [KINDS["dict"](f"{letter}.txt") for letter in "abcdef"]
    again = await left_in_progress(pages, "d.txt", "sync batch")
    with pytest.raises(InputChangedError, match=r"had 6 items \(it was at .*c\.txt.*\), this one has 5"):
        list(again.each(pages[:5], resume=True, batch=2))

    class Row:
        """It has no meaning in another process."""

        def __str__(self) -> str:
            return "row"

    rows: list[Any] = ["first.txt", *(Row() for _ in range(5))]
    run = fake_run()
    for number, _ in enumerate(run.each(rows, resume=True)):
        if number == 3:
            break
    with pytest.raises(InputChangedError, match=r"had 6 items, this one has 5"):
        list(resumed(run).each(rows[:5], resume=True))


CHANGES: list[tuple[str, Callable[[list[str]], list[str]]]] = [
    ("one more in front", lambda items: ["0.txt", *items]),
    ("one less", lambda items: items[1:]),
    ("another order", lambda items: [*items[1:], items[0]]),
    ("another item", lambda items: ["x.txt" if item in ("c.txt", "d.txt") else item for item in items]),
]


@pytest.mark.parametrize("loop", ["resume", "state", "map", "map without results"])
@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_other_items_are_refused_with_both_and_the_remedies(
    loop: str, name: str, change: Callable[[list[str]], list[str]]
) -> None:
    """A retry with a changed list passed over items that had never been done, and the job completed."""
    items = [f"{letter}.txt" for letter in "abcdefg"]

    def work(run: FakeRun, items: list[str], fails: bool) -> None:
        def one(item: str) -> str:
            if fails and item == "d.txt":
                raise Away
            return item

        if loop.startswith("map"):
            run.map(one, items, keep=loop == "map")
        elif loop == "resume":
            for item in run.each(items, resume=True):
                one(item)
        else:
            state = run.state(sum=0)
            for item in run.each(items, state=state):
                run._loops.snapshots._next_at.clear()
                run._report()
                one(item)

    run = fake_run()
    with contextlib.suppress(Away):
        work(run, items, True)
    again = resumed(run)
    with pytest.raises(InputChangedError) as refused:
        work(again, change(items), False)
    for remedy in ("key=", "sort", "from_start"):
        assert remedy in str(refused.value)
    if name in ("another order", "another item"):
        assert ".txt" in str(refused.value).partition(";")[0]
    work(resumed(run), items, False)
    work(fake_run(), change(items), False)


def test_items_may_be_added_behind_and_removed_in_front_of_a_key() -> None:
    def until(run: FakeRun, items: list[str], last: str) -> FakeRun:
        for item in run.each(items, key=str, resume=True):
            if item == last:
                break
        return resumed(run)

    again = until(fake_run(), ["a", "b", "c", "d"], "c")
    assert list(again.each(["a", "b", "c", "d", "e"], key=str, resume=True)) == ["c", "d", "e"]
    again = until(fake_run(), ["a", "b", "c", "d"], "c")
    assert list(again.each(["b", "c", "d"], key=str, resume=True)) == ["c", "d"]
    again = until(fake_run(), ["a", "b", "c", "d"], "c")
    with pytest.raises(InputChangedError, match="item 2 was 'b' in the last attempt, now it is 'aa'") as refused:
        list(again.each(["a", "aa", "b", "c", "d"], key=str, resume=True))
    assert "key=" not in str(refused.value)
    assert "from_start" in str(refused.value)


def test_items_without_a_lasting_content_continue_by_position() -> None:
    class Handle:
        """It has no meaning in another process."""

    pages = [Handle() for _ in range(4)]
    run = fake_run()
    for number, _ in enumerate(run.each(pages, resume=True)):
        if number == 2:
            break
    again = [Handle() for _ in range(4)]
    assert list(resumed(run).each(again, resume=True)) == again[2:]
