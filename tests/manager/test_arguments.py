"""Arguments of the wrong type get one line that names the argument and says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from milepost import InMemoryJobManager, InvalidInputError
from milepost.client import AsyncClient
from milepost.core.errors import FilterError
from milepost.query.filters import parse_filter


@pytest.fixture
def manager() -> InMemoryJobManager:
    manager = InMemoryJobManager()
    for job_id, job_type in (("a", "load"), ("b", "report")):
        manager.create_job(job_id, job_type)
    return manager


def test_find_takes_a_filter_as_text_as_the_client_does(manager: InMemoryJobManager) -> None:
    assert [job.job_id for job in manager.find("type:load created:1h").jobs] == ["a"]
    assert [job.job_id for job in manager.find(parse_filter("not.type:load")).jobs] == ["b"]
    assert manager.find("status:pending").total == manager.find().total == 2
    with pytest.raises(FilterError, match="unknown status 'lost'"):
        manager.find("status:lost")


CALLS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "find": (lambda manager, given: manager.find(given), "query: {} pass a filter such as 'status:failed type:load'"),
    "get_job": (lambda manager, given: manager.get_job(given), "job_id: {} pass "),
    "delete_job": (lambda manager, given: manager.delete_job(given), "job_id: {} pass "),
    "cancel_job": (lambda manager, given: manager.cancel_job(given), "job_id: {} pass "),
    "retry_check": (lambda manager, given: manager.retry_check(given), "job_id: {} pass "),
    "events": (lambda manager, given: manager.events(given), "job_id: {} pass "),
    "watch": (lambda manager, given: next(manager.watch(given)), "job_id: {} pass "),
    "get_schedule": (lambda manager, given: manager.get_schedule(given), "name: {} pass the name of a schedule"),
    "history": (lambda manager, given: manager.history(job_type=given), "job_type: {} must be 1 to 128 of"),
    "history of a queue": (lambda manager, given: manager.history(queue=given), "queue: {} must be 1 to 128 bytes"),
    "usage": (lambda manager, given: manager.usage(job_type=given), "job_type: {} must be 1 to 128 of"),
    "track": (lambda manager, given: manager.track(plan=given), "plan: "),
    "list_jobs": (lambda manager, given: manager.list_jobs(cursor=given), "cursor: "),
}


@pytest.mark.parametrize("call", CALLS)
def test_argument_of_another_type_is_named(manager: InMemoryJobManager, call: str) -> None:
    """Regression: AttributeError, TypeError, or no error at all: `delete_job(job)` deleted nothing."""
    ask, text = CALLS[call]
    job = manager.get_job("a")
    for given in (5, ["a"], b"a", job):
        with pytest.raises(InvalidInputError) as caught:
            ask(manager, given)
        start, _, remedy = text.partition("{}")
        line = str(caught.value)
        assert line.startswith(start), line
        assert remedy in line
        assert len(line) < 200
        assert "\n" not in line


def test_job_instead_of_its_id_says_so(manager: InMemoryJobManager) -> None:
    with pytest.raises(InvalidInputError, match=r"^job_id: Job\(.* is a Job, not a str; pass its job_id$"):
        manager.cancel_job(manager.get_job("a"))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [5, None, ["a"]])
def test_wait_and_result_take_a_job_or_an_id(manager: InMemoryJobManager, given: Any) -> None:
    for ask in (manager.wait, manager.result):
        with pytest.raises(InvalidInputError, match=r"^job: .*; pass a Job or the id of one$"):
            ask(given)


def test_none_is_the_id_of_no_job(manager: InMemoryJobManager) -> None:
    assert manager.get_job(None) is None  # type: ignore[arg-type]
    manager.delete_job(None)  # type: ignore[arg-type]


def test_enqueue_without_a_type_names_it(manager: InMemoryJobManager) -> None:
    with pytest.raises(InvalidInputError, match=r"^job_type: None must be"):
        manager.enqueue(None)  # type: ignore[arg-type]


async def test_client_names_job_type_and_queue() -> None:
    """Regression: it sent them, and the answer was an empty one."""
    async with AsyncClient("http://t", transport=httpx.MockTransport(lambda request: httpx.Response(500))) as client:
        with pytest.raises(InvalidInputError, match=r"^job_type: 5 must be"):
            await client.history(job_type=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"^queue: 5 must be"):
            await client.history(queue=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"^job_type: 5 must be"):
            await client.usage(job_type=5)  # type: ignore[arg-type]


async def test_client_names_the_query() -> None:
    async with AsyncClient("http://t", transport=httpx.MockTransport(lambda request: httpx.Response(500))) as client:
        with pytest.raises(InvalidInputError, match=r"^query: 5 is a int; pass a filter"):
            await client.find(5)  # type: ignore[arg-type]
