"""A Celery application whose tasks are moved to milepost's worker one by one, as its guide says, while callers send messages.

Each message is worked off once, by the worker of its time, and none is lost at a deploy.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from milepost import Jobs, Settings
from tests.cli.subprocesses import COMMAND
from tests.redis_server import RedisServer
from tests.waiting import PATIENCE, until

celery = pytest.importorskip("celery")
pytestmark = [pytest.mark.slow, pytest.mark.timing]

JOBS = """
import os
from milepost import Jobs, Run

jobs = Jobs()

def note(text: str) -> None:
    with open(os.environ["LOG"], "a") as log:
        log.write(text + "\\n")

@jobs.job("thumbnails")
def make_thumbnails(run: Run, number: int) -> None:
    note(f"thumbnails {number} milepost")

@jobs.job("mail")
def send_mail(run: Run, number: int) -> None:
    note(f"mail {number} milepost")
"""
SHOP = """
import os
from celery import Celery
from jobs import jobs, make_thumbnails, note, send_mail

app = Celery("shop", broker=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True

@app.task
def thumbnails(number: int) -> None:
    note(f"thumbnails {number} celery")

@app.task
def mail(number: int) -> None:
    note(f"mail {number} celery")
"""
MOVES = [
    ('note(f"thumbnails {number} celery")', "jobs.submit(make_thumbnails, number=number)"),
    ('note(f"mail {number} celery")', "jobs.submit(send_mail, number=number)"),
]
CELERY = ("-m", "celery", "-A", "shop", "worker", "--pool=solo", "--loglevel=WARNING", "--without-gossip")


class Shop:
    """The processes of the application, and a caller that sends both tasks by name all the time."""

    def __init__(self, folder: Path, broker: str, url: str, namespace: str) -> None:
        self.log = folder / "log"
        self.log.touch()
        self._folder = folder
        self._environment = {
            **os.environ, "BROKER": broker, "LOG": str(self.log), "MILEPOST_URL": url, "MILEPOST_NAMESPACE": namespace,
            "PYTHONDONTWRITEBYTECODE": "1",  # a deploy within a second of the last would find the old code
        }  # fmt: skip
        (folder / "jobs.py").write_text(JOBS)
        self._source = SHOP
        self._celery: subprocess.Popen[bytes] | None = None
        self._app = celery.Celery("caller", broker=broker, set_as_current=False)
        self._stopped = threading.Event()
        self._caller = threading.Thread(target=self._call)
        self.sent = 0

    def _call(self) -> None:
        for number in itertools.count():
            for task in ("shop.thumbnails", "shop.mail"):
                self._app.send_task(task, kwargs={"number": number})
            self.sent = number + 1
            if self._stopped.wait(0.02):
                return

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=self._folder, env=self._environment)

    def deploy(self, *move: str) -> None:
        """End the Celery worker in order, change a task if one is given, and start it again."""
        if self._celery is not None:
            self._celery.terminate()
            self._celery.wait(PATIENCE)
        if move:
            assert move[0] in self._source
            self._source = self._source.replace(*move)
        (self._folder / "shop.py").write_text(self._source)
        self._celery = self.start(sys.executable, *CELERY)

    def begin(self) -> None:
        self._caller.start()

    def end(self) -> None:
        """Stop the caller, if it has begun."""
        self._stopped.set()
        if self._caller.ident is not None:
            self._caller.join()
        self._app.close()

    def close(self) -> None:
        self.end()
        if self._celery is not None:
            self._celery.kill()
            self._celery.wait()

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how many messages of each task each worker has worked off."""
        return Counter((task, worker) for task, _, worker in self.lines())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]


@pytest.fixture
def shop(start_redis: Callable[..., RedisServer], redis_url: str, namespace: str, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path, start_redis().url, redis_url, namespace)
    yield shop
    shop.close()


def test_tasks_move_one_by_one_while_both_workers_run(shop: Shop, redis_url: str, namespace: str) -> None:
    def more(task: str, worker: str, by: int = 20) -> Any:
        before = shop.counts()[task, worker]
        return until(lambda: shop.counts()[task, worker] >= before + by)

    shop.begin()
    shop.deploy()
    more("thumbnails", "celery")
    worker = shop.start(*COMMAND, "worker", "jobs:jobs")
    try:
        shop.deploy(*MOVES[0])
        more("thumbnails", "milepost")
        more("mail", "celery")
        assert shop.counts()["mail", "milepost"] == 0
        shop.deploy(*MOVES[1])
        more("mail", "milepost")
        left = shop.counts()
        with closing(Jobs(redis_url, options=Settings(namespace=namespace))) as jobs:
            for task in ("thumbnails", "mail"):
                jobs.wait(jobs.submit(task, {"number": -1}), PATIENCE)  # a caller that has changed
        shop.end()
        until(lambda: len(shop.lines()) == 2 * (shop.sent + 1))
    finally:
        worker.kill()
        worker.wait()
    assert {task: left[task, "celery"] for task in ("thumbnails", "mail")} == {
        task: shop.counts()[task, "celery"] for task in ("thumbnails", "mail")
    }, "Celery runs none of them any more"
    worked_off = Counter((task, int(number)) for task, number, _ in shop.lines())
    assert worked_off == Counter(itertools.product(("thumbnails", "mail"), range(-1, shop.sent)))
