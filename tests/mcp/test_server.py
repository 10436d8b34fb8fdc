"""`milepost mcp`: its tools over each kind of store, the scopes of a key, and both transports as a user starts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from milepost import AsyncJobs, AsyncRun, SQLiteJobManager
from milepost.cli import main
from milepost.mcp.server import over_store
from milepost.settings import settings
from milepost.web.auth import api_keys, none
from milepost.web.security.api_keys import ApiKeyStore
from tests.cli.subprocesses import COMMAND
from tests.services import free_port
from tests.waiting import until


@pytest.fixture
async def jobs(url: str, namespace: str) -> AsyncIterator[AsyncJobs]:
    """Return jobs with workers: `greet` ends at once, `wait` when it is cancelled."""
    jobs = AsyncJobs(url, options=replace(settings.current(), namespace=namespace))

    @jobs.job
    async def greet(run: AsyncRun, name: str) -> str:
        run.log(f"greeting {name}")
        return f"Hello, {name}"

    @jobs.job
    async def wait(run: AsyncRun) -> None:
        await asyncio.Event().wait()

    @jobs.job
    async def approve(run: AsyncRun) -> bool:
        answer: bool = await run.ask("publish", "Publish it?", bool)
        return answer

    async with jobs.run_workers():
        yield jobs
    await jobs.close()


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool, and return its structured content; the text of an error."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        return getattr(result.content[0], "text", None)
    content = result.structured_content
    assert content is not None
    return content.get("result", content) if list(content) == ["result"] else content


async def test_tools_cover_life_of_job(jobs: AsyncJobs) -> None:
    server, _ = over_store(jobs, none(), None)
    async with Client(server) as client:
        types = {one["name"]: one for one in (await call(client, "list_job_types"))["job_types"]}
        assert types["greet"]["schema"]["properties"]["name"]["type"] == "string"
        made = await call(client, "submit_job", job_type="greet", params={"name": "Ana"})
        job = await call(client, "wait_for_job", job_id=made["job_id"])
        assert (job["status"], job["result"]) == ("completed", "Hello, Ana")
        assert await call(client, "get_job", job_id=made["job_id"]) == job
        log = await call(client, "read_log", job_id=made["job_id"])
        assert [line["text"] for line in log["lines"]] == ["greeting Ana"]
        assert (await call(client, "read_log", job_id=made["job_id"], cursor=log["cursor"]))["lines"] == []
        waiting = await call(client, "submit_job", job_type="wait", unique_key="one")
        same = await call(client, "submit_job", job_type="wait", unique_key="one")
        assert same["job_id"] == waiting["job_id"]
        left = await call(client, "wait_for_job", job_id=waiting["job_id"], timeout_seconds=0.05)
        assert left["status"] in ("pending", "running")
        gone = await call(client, "cancel_job", job_id=waiting["job_id"], reason="not needed")
        assert (gone["status"], gone["receipt"]["reason"]) == ("cancelled", "not needed")
        found = await call(client, "list_jobs", filter="status:cancelled")
        assert [one["job_id"] for one in found] == [waiting["job_id"]]


async def test_answer_continues_job(jobs: AsyncJobs) -> None:
    server, _ = over_store(jobs, none(), None)
    async with Client(server) as client:
        job_id = (await call(client, "submit_job", job_type="approve"))["job_id"]
        while not (await call(client, "get_job", job_id=job_id)).get("questions"):
            await asyncio.sleep(0.02)
        assert "value" in await call(client, "answer_question", job_id=job_id, key="publish", value="yes")
        await call(client, "answer_question", job_id=job_id, key="publish", value=True)
        assert (await call(client, "wait_for_job", job_id=job_id))["result"] is True
        late = await call(client, "answer_question", job_id=job_id, key="publish", value=False)
        assert "question 'publish' was answered" in late


async def test_errors_name_field_and_remedy(jobs: AsyncJobs) -> None:
    server, _ = over_store(jobs, none(), None)
    async with Client(server) as client:
        assert "no worker has published 'unknown'" in await call(client, "submit_job", job_type="unknown")
        assert "name" in await call(client, "submit_job", job_type="greet", params={})
        for tool in ("get_job", "wait_for_job", "cancel_job", "read_log"):
            for job_id in ("absent", "../keys", "a?b"):
                assert job_id in await call(client, tool, job_id=job_id)
        assert await jobs.count_jobs() == 0


async def test_key_limits_tools() -> None:
    jobs = AsyncJobs("memory://")

    @jobs.job
    async def greet(run: AsyncRun) -> None: ...

    keys = ApiKeyStore(jobs.store)
    _, reader = await keys.create("reader", ["jobs:read"])
    _, tenant = await keys.create("tenant", ["jobs:read", "jobs:write"], labels={"tenant": "a"})
    foreign = await jobs.create_job(labels={"tenant": "b"})
    server, _ = over_store(jobs, api_keys(), reader)
    async with Client(server) as client:
        assert (await call(client, "get_job", job_id=foreign.job_id))["job_id"] == foreign.job_id
        assert "jobs:write" in await call(client, "submit_job", job_type="greet")
        assert "jobs:cancel" in await call(client, "cancel_job", job_id=foreign.job_id)
        refused = await call(client, "answer_question", job_id=foreign.job_id, key="a", value=1)
        assert "jobs:answer" in refused
    server, _ = over_store(jobs, api_keys(), tenant)
    async with Client(server) as client:
        assert foreign.job_id in await call(client, "get_job", job_id=foreign.job_id)
        assert foreign.job_id in await call(client, "read_log", job_id=foreign.job_id)
        made = await call(client, "submit_job", job_type="greet")
        assert made["labels"] == {"tenant": "a"}
        assert [one["job_id"] for one in await call(client, "list_jobs")] == [made["job_id"]]
    server, _ = over_store(jobs, api_keys(), None)
    async with Client(server) as client:
        assert "API key is required" in await call(client, "list_jobs")
    await jobs.close()


async def test_stdio_serves_store(sqlite_url: str) -> None:
    manager = SQLiteJobManager(sqlite_url.removeprefix("sqlite:///"))
    job = manager.create_job(job_type="manual")
    command = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "mcp", "--url", sqlite_url], env=dict(os.environ)
    )
    async with Client(stdio_client(command)) as client:
        assert [one["job_id"] for one in await call(client, "list_jobs")] == [job.job_id]
    manager.close()


@pytest.mark.timing
def test_http_requires_key(sqlite_url: str) -> None:
    create = [*COMMAND, "--url", sqlite_url, "--json", "keys", "create", "agent", "--scope", "jobs:read"]
    key = json.loads(subprocess.run(create, capture_output=True, text=True, check=True).stdout)["key"]
    port = free_port()
    address, allowed = f"http://127.0.0.1:{port}/mcp", {"Authorization": f"Bearer {key}"}
    process = subprocess.Popen([*COMMAND, "mcp", "--url", sqlite_url, "--http", "--port", str(port)])

    async def use() -> None:
        async with (
            httpx2.AsyncClient(headers=allowed) as http,
            Client(streamable_http_client(address, http_client=http)) as client,
        ):
            assert await call(client, "list_jobs") == []
            assert "jobs:write" in await call(client, "submit_job", job_type="x")

    try:
        until(lambda: answers(address))
        refused = httpx.post(address, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        foreign = httpx.post(address, headers={**allowed, "Host": "example.com"}, json={})
        assert foreign.status_code == 421
        asyncio.run(use())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code > 0
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--port", "1"], "--port needs --http"),
        (["--url", "memory://"], "memory://"),
        (["--http", "--url", "http://127.0.0.1:1"], "already a server"),
        (["--http", "--host", "0.0.0.0"], "refusing to listen"),
    ],
)
def test_bad_options_are_refused(
    options: list[str],
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sqlite_url: str,
) -> None:
    monkeypatch.setenv("MILEPOST_URL", sqlite_url)
    assert main(["mcp", *options]) != 0
    error = capsys.readouterr().err
    assert wanted in error
    assert "Traceback" not in error
