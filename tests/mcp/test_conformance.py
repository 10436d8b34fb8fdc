"""The task scenarios of MCP's own conformance suite, and a server that is killed during a call."""

from __future__ import annotations

import asyncio
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from milepost import JobManager
from milepost.settings import settings
from tests.chaos.calibration import slowness
from tests.mcp.served import ServedTools
from tests.mcp.task_client import call, start, task_client
from tests.node import npm_install, run_node
from tests.waiting import until

SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"  # the first version with scenarios of tasks
SCENARIOS = [
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
    "tasks-mrtr-input",
    "tasks-mrtr-composition",
]
"""All but `tasks-status-notifications`, which has no checks."""
CHECKS = 35
"""How many checks these scenarios make, besides those of the wire schema."""


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the suite with npm, and return its program."""
    return npm_install(tmp_path_factory.mktemp("suite"), SUITE) / "@modelcontextprotocol/conformance/dist/index.js"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_task_scenarios_pass(
    kind: str, suite: Path, tmp_path: Path, request: pytest.FixtureRequest, redis_namespace: str
) -> None:
    store = "memory://" if kind == "memory" else request.getfixturevalue(f"{kind}_url")

    def run(scenario: str) -> subprocess.CompletedProcess[str]:
        results = str(tmp_path / "results")
        return run_node(str(suite), "server", "--url", server.url, "--scenario", scenario, "--output-dir", results)

    with ServedTools(store, MILEPOST_NAMESPACE=redis_namespace) as server, ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(run, SCENARIOS))
    checks = [check for path in tmp_path.rglob("checks.json") for check in json.loads(path.read_text())]
    assert [check for check in checks if check["status"] != "SUCCESS"] == []
    assert [done.stderr for done in ended if done.returncode] in ([], [""])
    assert len([check for check in checks if check["id"] != "wire-schema-valid"]) == CHECKS


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
async def test_task_survives_sigkill_of_its_server(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, redis_namespace: str
) -> None:
    gate = tmp_path / "gate"
    store: str = request.getfixturevalue(f"{kind}_url")
    jobs = JobManager(store, options=replace(settings.current(), namespace=redis_namespace))
    lease = 2 * slowness()  # seconds: the second run must not be lost in a busy moment
    options = {"MILEPOST_LEASE": str(lease), "MILEPOST_SWEEP": "0.1", "MILEPOST_NAMESPACE": redis_namespace}
    with ServedTools(store, **options) as server:
        async with task_client(server.url) as client:
            made = await start(client, "wait_for_file", path=str(gate))
            await asyncio.to_thread(until, lambda: jobs.get_job(made.task_id).started_at)
            await asyncio.to_thread(server.kill)
    with ServedTools(store, **options) as server:
        async with task_client(server.url) as client:
            task = await call(client, "tasks/get", made.task_id)
            assert task["status"] == "working"
            gate.touch()
            while task["status"] == "working":
                await asyncio.sleep(0.05)
                task = await call(client, "tasks/get", made.task_id)
            assert task["status"] == "completed"
            assert task["result"]["structuredContent"] == {"result": "gate exists"}
    assert len(jobs.get_job(made.task_id).attempts) == 2
    jobs.close()
