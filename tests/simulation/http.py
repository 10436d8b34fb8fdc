"""The web application in the virtual world, and a client that repeats a request with its key until it has the answer."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from milepost.web import app, auth
from milepost.web.api.submit import IN_PROGRESS_MICROS, add_submit
from tests.simulation.world import Process, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.rules import Rules
    from tests.simulation.simulation import Simulation

HTTP_RULES = {
    "one-job-per-request": "P1: an idempotency key makes one job, and has one answer",
    "requests-are-answered": "P1: a request that is repeated is answered in the end",
}
CLIENT = "client-0"
TIMEOUT, PAUSE = 1.5, 0.4
"""Seconds for which the client waits for an answer, and between two tries."""
COPIES = 2
"""The most copies of a request that the network delivers at once."""
AGAIN = frozenset((409, 503))
"""The statuses after which the same request is sent again."""
LABEL = "request"


class Answer(NamedTuple):
    """An answer of the server."""

    status: int
    body: bytes


class HttpServer:
    """The web application of one process, called as an ASGI server calls it."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        jobs = simulation.jobs(process)
        with mock.patch.object(app, "add_routes", add_submit):  # to make the other routes takes longer
            self._app = app.create_app(jobs, auth=auth.none())
        self._loop = VirtualLoop(simulation.world)
        process.memory["http"] = self
        jobs._async.runtime.heartbeat.retain()  # as the lifespan of the application does

    def run(self) -> None:
        """Serve until the process dies."""

        async def serve() -> None:
            await asyncio.get_running_loop().create_future()

        self._loop.run(serve())

    def request(self, body: bytes, key: str, reply: Any) -> None:
        """Let the application answer a request, and call `reply` with the answer. Called from outside of the process."""

        async def answer() -> None:
            sent = await _called(self._app, body, key)
            reply(Answer(sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])))

        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(answer()))


async def _called(app: Any, body: bytes, key: str) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"content-type": "application/json", "host": "localhost", "idempotency-key": key}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/jobs",
        "raw_path": b"/api/jobs",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent


class HttpRules:
    """Checks the requests of one run of the simulation."""

    def __init__(self, rules: Rules) -> None:
        self._fail, self._server = rules.fail, rules.server
        self._made: dict[str, str] = {}
        self._answers: dict[str, str] = {}
        self.waiting: str = ""
        """The key of the request that has no answer yet."""

    def on_create(self, job_id: str, new: Any) -> None:
        """Check a new record."""
        label, _, key = new.get("labels", "").partition("=")
        if label == LABEL and self._made.setdefault(key, job_id) != job_id:
            self._fail(
                "one-job-per-request", f"{job_id[-6:]} was made beside {self._made[key][-6:]} with the key {key}"
            )

    def on_answer(self, key: str, job_id: str) -> None:
        """Check a successful answer to a request, also one that came too late."""
        if self._answers.setdefault(key, job_id) != job_id or self._made.get(key) != job_id:
            self._fail("one-job-per-request", f"an answer to {key} has the job {job_id[-6:]}")

    def at_rest(self) -> None:
        """Check that no request is left without an answer.

        A claim of a request that was lost counts for up to twice its time, if the store's clock was set back since.
        """
        if self.waiting and not self._server.clock_stepped_within(2 * IN_PROGRESS_MICROS):
            self._fail("requests-are-answered", f"the request {self.waiting} has no answer")


def ask(simulation: Simulation, process: Process) -> None:
    """Submit jobs over HTTP, one after another, until the faults end."""
    world, rules, turn = simulation.world, simulation.rules, 0
    while world.now < simulation.work_until:
        turn += 1
        name = f"{process.name}@{turn}"
        world.sleep(0.5)
        if not world.choose(f"ask:{name}", 2):
            continue
        key, job_type = f"key-{turn}", ("quick", "threaded")[world.choose(f"ask type:{name}", 2)]
        body = {"job_type": job_type, "params": {"n": turn % 3}, "labels": {LABEL: key}}
        rules.http.waiting = key
        answer = _answered(simulation, process, json.dumps(body).encode(), key)
        rules.http.waiting = ""
        if answer.status not in (200, 201):
            rules.fail("requests-are-answered", f"{key}: {answer.status} {answer.body[:200]!r}")
            return
        rules.acknowledged[json.loads(answer.body)["job_id"]] = job_type


def _answered(simulation: Simulation, process: Process, body: bytes, key: str) -> Answer:
    """Send a request again and again until it has an answer; return it."""
    while True:
        answer = _sent(simulation, process, body, key)
        if answer is not None and answer.status not in AGAIN:
            return answer
        simulation.world.sleep(PAUSE)


def _sent(simulation: Simulation, process: Process, body: bytes, key: str) -> Answer | None:
    """Send a request once, or in several copies; return the answer if it comes in time."""
    world, conditions = simulation.world, simulation.conditions
    client, server = world.current, simulation.processes["server"]
    assert client is not None, "sent by a thread"
    answers: list[Answer] = []

    def receive(answer: Answer) -> None:
        answers.append(answer)
        if answer.status in (200, 201):
            simulation.rules.http.on_answer(key, json.loads(answer.body)["job_id"])
        world.wake(client)

    def deliver() -> None:
        there, back = conditions.delay("there", client.name), conditions.delay("back", client.name)
        lost = conditions.loss(process, client.name)

        def reply(answer: Answer) -> None:
            world.note(f"{server.name}: answers {key} with {answer.status}" + (" (reply lost)" if lost else ""))
            if lost != "reply":
                world.post(back * 1e6, lambda: receive(answer), process)

        if lost != "request" and not process.is_cut and "http" in server.memory:
            world.post(there * 1e6, lambda: server.memory["http"].request(body, key, reply), server)

    for _ in range(1 + (world.choose(f"copies:{process.name}", COPIES, 0.1) if conditions.is_active else 0)):
        deliver()
    end = world.now + int(TIMEOUT * 1e6)
    while not answers and world.now < end:
        world.wait((end - world.now) / 1e6)
    return answers[0] if answers else None
