"""Connections to the store of a process that sends to a task queue from its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from milepost import AsyncJobs, Job, Run
from tests.integrations.direct_task_queue import DirectTaskQueue
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.service("redis-server"), pytest.mark.filterwarnings("ignore:Task name")]

CALLS = 20


class SilentTaskQueue(DirectTaskQueue):
    """A task queue that only keeps the messages."""

    def send(self, job: Job) -> None:
        self.sent.append(job.job_id)


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Return a server that no other test uses."""
    return start_redis()


@pytest.fixture
def connections(server: RedisServer) -> Iterator[Callable[[], int]]:
    """Return a function that counts the connections that the server has accepted so far."""
    with server.client() as client:
        yield lambda: int(client.info("stats")["total_connections_received"])


def test_submits_share_a_connection(server: RedisServer, connections: Callable[[], int]) -> None:
    """Each submit to a task queue with AsyncJobs opened one more connection, to record that its message was sent."""
    task_queue = SilentTaskQueue()

    async def submits() -> int:
        jobs = AsyncJobs(server.url, task_queue=task_queue)

        @jobs.job("noted")
        async def noted(run: Run) -> None:
            """Never run."""

        task_queue.dispatcher.disable_thread()  # as in a process that runs the code of a job
        await jobs.submit(noted)
        before = connections()
        for _ in range(CALLS):
            await jobs.submit(noted)
        opened = connections() - before
        assert not task_queue.dispatcher.has_unrecorded
        await jobs.close()
        return opened

    assert asyncio.run(submits()) == 0
    assert len(task_queue.sent) == CALLS + 1


@pytest.mark.usefixtures("celery_signals")
def test_calls_of_tracked_task_share_a_connection(server: RedisServer, connections: Callable[[], int]) -> None:
    """Each `delay` of a tracked task with AsyncJobs opened one more connection, to record the job."""
    celery = pytest.importorskip("celery")
    from milepost.integrations.celery import CeleryTaskQueue, tracked

    app = celery.Celery("many", broker="memory://", set_as_current=False)

    async def calls() -> int:
        jobs = AsyncJobs(server.url, task_queue=CeleryTaskQueue(app))

        @tracked(jobs=jobs)
        @app.task(name="many.add", shared=False)
        def add(x: int) -> int:
            return x

        add.delay(0)
        before = connections()
        for number in range(CALLS):
            add.delay(number)
        opened = connections() - before
        assert await jobs.count_jobs() == CALLS + 1
        await jobs.close()
        return opened

    assert asyncio.run(calls()) == 0
