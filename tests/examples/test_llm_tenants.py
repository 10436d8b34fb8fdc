"""Tenants share a provider that allows few calls, while workers are killed: nothing is paid in vain, and all is counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from milepost import Job, Jobs, Settings
from tests.chaos.calibration import slowness
from tests.cli.subprocesses import COMMAND
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KILLS, RUNNING, LONGEST, BUDGET = 2, 4, 2 * 6, 0.001
"""Workers that are killed, the limit of the example, the tokens of its longest answer, and the USD of the poorest tenant."""


@pytest.fixture
def provider() -> Iterator[str]:
    """Start the fake provider and yield the URL of its API."""
    command = [
        sys.executable,
        str(EXAMPLES / "fake_provider.py"),
        "0",
        "--rate",
        "4",
    ]  # less than a slow machine asks for
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


class Bill:
    """What the provider has counted: how often each answer was paid for, by tenant and page."""

    def __init__(self, url: str) -> None:
        with urlopen(url.replace("/v1", "/bill"), timeout=10) as answer:
            self.counted = json.load(answer)
        self.times: Counter[str] = Counter()
        self.tokens: Counter[tuple[str, str]] = Counter()
        for paid in self.counted["paid"]:
            page, tenant = re.findall(r"page (\d+) of (\w+)", paid["prompt"].lower())[0]
            self.times[paid["prompt"]] += paid["times"]
            self.tokens[tenant, page] += paid["tokens"]


def pages_of(jobs: Jobs, tenant: str) -> dict[str, Job]:
    """Return the jobs of the pages of a tenant that have started, by the number of the page."""
    found = jobs.list_jobs(job_type="page", labels={"tenant": tenant}, limit=1000)
    return {re.findall(r"page (\d+)", str(job.params["text"]))[0]: job for job in found if job.started_at}


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def test_killed_workers_pay_no_kept_answer_again(request: pytest.FixtureRequest, kind: str, provider: str) -> None:
    environment = {**os.environ, "MILEPOST_URL": request.getfixturevalue(f"{kind}_url"), "LLM_URL": provider}
    environment |= {"MILEPOST_LEASE": str(2 * slowness()), "MILEPOST_SWEEP": "0.3", "PYTHONPATH": str(EXAMPLES)}
    namespace = request.getfixturevalue("redis_namespace") if kind == "redis" else "milepost"
    environment["MILEPOST_NAMESPACE"] = namespace
    jobs = Jobs(environment["MILEPOST_URL"], options=Settings(namespace=namespace))

    def worker() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*COMMAND, "worker", "llm_tenants:jobs"], env=environment, stderr=subprocess.DEVNULL)

    def paid() -> int:
        return len(Bill(provider).times)

    ended: dict[str, Job] = {}
    command = [sys.executable, str(EXAMPLES / "llm_tenants.py"), "acme=9", "globex=4"]
    submitted = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    books = dict(zip(("acme", "globex"), submitted.stdout.split(), strict=True))
    poor: dict[str, Any] = {"labels": {"tenant": "initech"}, "partition": "initech", "budget": {"usd": BUDGET}}
    books["initech"] = jobs.enqueue("book", {"pages": [f"page {n} of initech" for n in range(10)]}, **poor).job_id
    small: dict[str, Any] = {"labels": {"tenant": "hooli"}, "partition": "hooli", "budget": {"usd": BUDGET / 4}}
    small["on_budget"] = "ask"
    books["hooli"] = jobs.enqueue("book", {"pages": [f"page {n} of hooli" for n in range(3)]}, **small).job_id
    workers = [worker(), worker()]
    try:
        for kill in range(KILLS):
            until(lambda kill=kill: paid() > 8 * (kill + 1))  # type: ignore[misc]
            workers[kill].kill()
            workers[kill].wait()
            workers.append(worker())
        (question,) = until(lambda: (jobs.get_job(books["hooli"]) or ended["hooli"]).questions)
        jobs.answer(books["hooli"], question.key, {"usd": 1}, by="bob")
        for tenant in ("acme", "globex", "hooli"):  # that of initech fails for its budget, perhaps before this
            jobs.answer(books[tenant], "publish", tenant != "globex", by="ana")
        ended = {tenant: jobs.wait(book, PATIENCE) for tenant, book in books.items()}
    finally:
        for process in workers:
            process.kill()
            process.wait()
    bill = Bill(provider)
    assert bill.counted["refused"] > 0, "no 429 was seen"
    assert 2 <= bill.counted["most_at_once"] <= RUNNING
    assert max(bill.times.values()) <= 1 + KILLS
    assert sum(bill.times.values()) <= len(bill.times) + KILLS * RUNNING
    assert ended["acme"].result == "\n".join(f"POLISH: TRANSLATE: PAGE {n} OF ACME" for n in range(9)), ended[
        "acme"
    ].error
    assert (ended["globex"].status, ended["globex"].result) == ("completed", "")
    assert (ended["initech"].status, str(ended["initech"].error)[:7]) == ("failed", "budget:")
    assert (ended["hooli"].status, str(ended["hooli"].result).count("POLISH")) == ("completed", 3)
    spent: Counter[str] = Counter()
    for tenant in books:
        for number, page in pages_of(jobs, tenant).items():
            lost = bill.tokens[tenant, number] - page.usage.get("tokens", 0)
            cut_off = [event.kind for event in jobs.events(page.job_id)].count("retrying") + (page.status == "failed")
            assert 0 <= lost <= cut_off * LONGEST, (page, lost)
            spent[tenant] += page.usage.get("tokens", 0)
    assert {tenant: amounts["tokens"] for tenant, amounts in jobs.usage(by="label:tenant").groups.items()} == spent
    assert spent["initech"] * 0.00001 < 2 * BUDGET
    jobs.close()
