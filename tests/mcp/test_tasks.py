"""Tools as MCP tasks: a client of the official SDK drives each method, on every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from mcp.client import Client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND, MISSING_REQUIRED_CLIENT_CAPABILITY, ElicitResult

from milepost import AsyncJobManager, AsyncJobs, AsyncRun, Jobs, Run
from milepost.mcp import Tasks
from milepost.mcp.tasks import token_principal
from milepost.settings import settings
from tests.mcp.task_client import TERMINAL, call, start, task_client


@dataclass
class Point:
    x: int
    y: int


@dataclass
class Approval:
    approved: bool
    note: str = ""


class Service:
    """A server with tools, its jobs, and who calls it at the moment."""

    def __init__(self, jobs: AsyncJobs) -> None:
        self.jobs = jobs
        self.caller: str | None = None
        self.may_end = asyncio.Event()
        self.tasks = Tasks(jobs, principal=lambda _: self.caller)
        self._add_tools()
        self.server = MCPServer("tests", extensions=[self.tasks], lifespan=jobs.lifespan())

    def _add_tools(self) -> None:
        @self.tasks.tool()
        async def add(run: AsyncRun, a: int, b: int = 2) -> int:
            """Add two numbers."""
            return a + b

        @self.tasks.tool(name="where")
        async def locate(run: AsyncRun) -> Point:
            return Point(1, 2)

        @self.tasks.tool()
        @self.jobs.job(max_attempts=1)
        async def explode(run: AsyncRun) -> str:
            raise ValueError("no such file")

        @self.tasks.tool()
        async def count(run: AsyncRun) -> int:
            run.progress(0.25, "a quarter")
            await self.may_end.wait()
            return 4

        @self.tasks.tool(required=True)
        async def long(run: AsyncRun) -> None:
            await self.may_end.wait()

        @self.tasks.tool()
        async def approve(run: AsyncRun) -> str:
            size = await run.ask("size", "Which size?", Literal["S", "L"])
            approval = await run.ask("publish", f"Publish size {size}?", Approval)
            return f"{size} {approval.note}"

        self.add, self.count = add, count


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    jobs = AsyncJobs("memory://")
    yield Service(jobs)
    await jobs.close()


@pytest.fixture
async def stored(url: str, namespace: str) -> AsyncIterator[Service]:
    """Return a service over each kind of store."""
    jobs = AsyncJobs(url, options=replace(settings.current(), namespace=namespace))
    yield Service(jobs)
    await jobs.close()


async def ended(client: Client, task_id: str) -> dict[str, Any]:
    while (task := await call(client, "tasks/get", task_id))["status"] not in TERMINAL:
        await asyncio.sleep(task["pollIntervalMs"] / 10_000)
    return task


async def message_of(client: Client, task_id: str) -> dict[str, Any]:
    while (task := await call(client, "tasks/get", task_id)).get("statusMessage") != "a quarter":
        await asyncio.sleep(0.02)
    return task


async def test_task_is_created_read_and_completed(stored: Service) -> None:
    async with task_client(stored.server) as client:
        made = await start(client, "count")
        job = await stored.jobs.get_job(made.task_id)
        assert job is not None, "the task is durable before the answer"
        task = await message_of(client, made.task_id)
        assert (task["status"], task["resultType"], task["ttlMs"]) == ("working", "complete", None)
        assert "result" not in task
        stored.may_end.set()
        task = await ended(client, made.task_id)
        assert task["status"] == "completed"
        assert task["result"]["structuredContent"] == {"result": 4}
        assert task["result"]["content"] == [{"type": "text", "text": "4"}]
        assert task["ttlMs"] >= stored.jobs.ttl * 1000
        done = await stored.jobs.wait(made.task_id)
        assert done.completed_at is not None
        assert task["createdAt"] == done.created_at.isoformat()


async def test_cancel_ends_task_and_is_idempotent(stored: Service) -> None:
    async with task_client(stored.server) as client:
        made = await start(client, "long")
        for _ in range(2):
            assert (await call(client, "tasks/cancel", made.task_id))["resultType"] == "complete"
            assert (await call(client, "tasks/get", made.task_id))["status"] == "cancelled"
        job = await stored.jobs.get_job(made.task_id)
        assert job is not None
        assert job.receipt is not None
        assert job.receipt.reason == "the client cancelled the task"


async def test_update_ignores_unknown_questions(stored: Service) -> None:
    async with task_client(stored.server) as client:
        made = await start(client, "long")
        answers = {"unknown": {"action": "accept", "content": {}}}
        assert (await call(client, "tasks/update", made.task_id, inputResponses=answers))["resultType"] == "complete"
        assert (await call(client, "tasks/get", made.task_id))["status"] == "working"
        stored.may_end.set()
        await ended(client, made.task_id)


async def show_no_form(context: Any, params: Any) -> ElicitResult:
    raise AssertionError("a task asks by its inputRequests")


async def question_of(client: Client, task_id: str, key: str) -> dict[str, Any]:
    while key not in (task := await call(client, "tasks/get", task_id)).get("inputRequests", {}):
        assert task["status"] != "completed"
        await asyncio.sleep(0.02)
    assert task["status"] == "input_required"
    request: dict[str, Any] = task["inputRequests"][key]
    return request


async def test_question_is_input_request_and_update_answers_it(stored: Service) -> None:
    async with task_client(stored.server, elicitation_callback=show_no_form) as client:
        made = await start(client, "approve")

        async def update(key: str, action: str, **content: Any) -> None:
            responses = {key: {"action": action, "content": content}}
            assert (await call(client, "tasks/update", made.task_id, inputResponses=responses))[
                "resultType"
            ] == "complete"

        asked = await question_of(client, made.task_id, "size")
        assert (asked["method"], asked["params"]["message"]) == ("elicitation/create", "Which size?")
        assert asked["params"]["requestedSchema"]["properties"]["value"]["enum"] == ["S", "L"]
        with pytest.raises(MCPError) as misfit:
            await update("size", "accept", value="XL")
        with pytest.raises(MCPError, match=r"inputResponses\.size"):
            await update("size", "agree", value="L")
        assert misfit.value.code == INVALID_PARAMS
        assert "inputResponses.size" in str(misfit.value)
        await update("size", "decline")
        await update("unknown", "accept", value="L")
        await question_of(client, made.task_id, "size")
        await update("size", "accept", value="L")
        await update("size", "accept", value="S")  # the first answer counts
        asked = await question_of(client, made.task_id, "publish")
        assert asked["params"]["message"] == "Publish size L?"
        assert set(asked["params"]["requestedSchema"]["properties"]) == {"approved", "note"}
        await update("publish", "accept", approved=True, note="fine")
        task = await ended(client, made.task_id)
        assert task["result"]["structuredContent"] == {"result": "L fine"}
        job = await stored.jobs.get_job(made.task_id)
        assert job is not None
        assert [(one.key, one.state, one.answered_by) for one in job.questions] == [
            ("size", "answered", "mcp"),
            ("publish", "answered", "mcp"),
        ]


async def test_client_without_forms_sees_working_task(service: Service) -> None:
    async with task_client(service.server) as client:
        made = await start(client, "approve")
        while (task := await call(client, "tasks/get", made.task_id))[
            "statusMessage"
        ] != "Waiting for an answer to question size":
            await asyncio.sleep(0.02)
        assert task["status"] == "working"
        await service.jobs.answer(made.task_id, "size", "S")
        await service.jobs.answer(made.task_id, "publish", {"approved": True, "note": "by hand"})
        assert (await ended(client, made.task_id))["result"]["structuredContent"] == {"result": "S by hand"}


async def test_error_of_tool_is_completed_task_with_error(service: Service) -> None:
    async with task_client(service.server) as client:
        task = await ended(client, (await start(client, "explode")).task_id)
        assert task["status"] == "completed"
        assert task["result"]["isError"] is True
        assert "no such file" in task["result"]["content"][0]["text"]


async def test_result_follows_output_schema(service: Service) -> None:
    async with task_client(service.server) as client:
        task = await ended(client, (await start(client, "where")).task_id)
        assert task["result"]["structuredContent"] == {"x": 1, "y": 2}


async def test_other_caller_cannot_reach_task(stored: Service) -> None:
    requests = {"tasks/get": {}, "tasks/update": {"inputResponses": {}}, "tasks/cancel": {}}
    async with task_client(stored.server) as client:
        stored.caller = "ana"
        made = await start(client, "long")
        manual = await stored.jobs.create_job()
        foreign = [("ben", made.task_id), (None, made.task_id), ("ana", "unknown"), ("ana", manual.job_id)]
        texts = set()
        for method, params in requests.items():
            for caller, task_id in foreign:
                stored.caller = caller
                with pytest.raises(MCPError) as refused:
                    await call(client, method, task_id, **params)
                assert refused.value.code == INVALID_PARAMS
                texts.add(str(refused.value))
        assert len(texts) == 1, "the answer does not tell whether the task exists"
        stored.caller = "ana"
        for method, params in requests.items():
            assert (await call(client, method, made.task_id, **params))["resultType"] == "complete"


@pytest.mark.parametrize("method", ["tasks/list", "tasks/result"])
async def test_methods_of_older_protocol_do_not_exist(service: Service, method: str) -> None:
    async with task_client(service.server) as client:
        with pytest.raises(MCPError) as refused:
            await call(client, method, "x")
        assert refused.value.code == METHOD_NOT_FOUND


async def test_client_without_tasks_waits_with_progress(stored: Service) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))
        if message == "a quarter":
            stored.may_end.set()

    async with Client(stored.server) as client:
        result = await client.call_tool("count", progress_callback=note)
        assert result.structured_content == {"result": 4}
        assert (0.25, 1.0, "a quarter") in seen
        with pytest.raises(MCPError) as refused:
            await client.call_tool("long")
        assert refused.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
        failed = await client.call_tool("explode")
        assert failed.is_error
        assert (await client.call_tool("where")).structured_content == {"x": 1, "y": 2}


async def test_client_of_older_protocol_gets_result(service: Service) -> None:
    async with task_client(service.server, mode="legacy") as client:
        assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 3}


async def test_cancelled_call_cancels_its_job(service: Service) -> None:
    async with Client(service.server) as client:
        waiting = asyncio.create_task(client.call_tool("count"))
        while not (running := await service.jobs.list_jobs(status="running")):
            await asyncio.sleep(0.01)
        waiting.cancel()
        ended = await service.jobs.wait(running[0].job_id, timeout=60)
        assert ended.status == "cancelled"


async def test_cancelled_call_keeps_the_job_of_another_call(service: Service) -> None:
    shared = service.count.options(unique_key="nightly")

    @service.server.tool()
    async def nightly() -> int:
        result: int = await service.tasks.run(shared)
        return result

    reported = asyncio.Event()

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reported.set()

    async with Client(service.server) as first, Client(service.server) as second:
        waiting = asyncio.create_task(first.call_tool("nightly"))
        while not await service.jobs.list_jobs(status="running"):
            await asyncio.sleep(0.01)
        cancelled = asyncio.create_task(second.call_tool("nightly", progress_callback=report))
        await asyncio.wait_for(reported.wait(), 60)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await second.call_tool("where")  # the server has received the cancel
        service.may_end.set()
        assert (await waiting).structured_content == {"result": 4}


async def test_invalid_arguments_create_no_job(service: Service) -> None:
    async with task_client(service.server) as client:
        result = await client.session.call_tool("add", {"a": "one"}, allow_claimed=True)
        assert result.is_error
        assert await service.jobs.count_jobs() == 0


async def test_record_needs_no_adapter(stored: Service, url: str, namespace: str) -> None:
    async with task_client(stored.server) as client:
        task = await ended(client, (await start(client, "add", a=1)).task_id)
    job = await stored.jobs.get_job(task["taskId"])
    assert job is not None
    assert (job.job_type, job.params, job.result, job.run_by) == ("add", {"a": 1, "b": 2}, 3, "worker")
    if stored.jobs.store.shared:
        other = AsyncJobManager(url, options=replace(settings.current(), namespace=namespace))
        assert await other.get_job(task["taskId"]) == job
        await other.close()


async def test_blocking_jobs_serve_tasks() -> None:
    jobs = Jobs("memory://")
    tasks = Tasks(jobs)

    @tasks.tool()
    def double(run: Run, n: int) -> int:
        return 2 * n

    async with task_client(MCPServer("blocking", extensions=[tasks])) as client:
        task = await ended(client, (await start(client, "double", n=4)).task_id)
        assert task["result"]["structuredContent"] == {"result": 8}
    jobs.close()


async def test_unique_key_of_other_caller_is_refused(service: Service) -> None:
    key = service.count.options(unique_key="nightly")

    @service.server.tool()
    async def nightly(strict: bool = False) -> int:
        result: int = await service.tasks.run(key.options(on_duplicate="refuse") if strict else key)
        return result

    async with task_client(service.server) as client:
        service.caller = "ana"
        made = await start(client, "nightly")
        assert (await start(client, "nightly")).task_id == made.task_id
        refused = await client.session.call_tool("nightly", {"strict": True}, allow_claimed=True)
        assert refused.is_error
        assert made.task_id in refused.content[0].text
        service.caller = "ben"
        refused = await client.session.call_tool("nightly", allow_claimed=True)
        assert refused.is_error
        assert "another caller" in refused.content[0].text


def test_default_principal_is_that_of_access_token() -> None:
    context: Any = None
    assert token_principal(context) is None
    seen = set()
    for client, subject in [("a", "x"), ("a", "y"), ("b", "x")]:
        user = AuthenticatedUser(AccessToken(token="t", client_id=client, scopes=[], subject=subject))
        before = auth_context_var.set(user)
        seen.add(token_principal(context))
        auth_context_var.reset(before)
    assert len(seen) == 3
