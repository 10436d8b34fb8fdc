"""A real Chromium and real servers for the browser tests. Each test has a context of its own, and fails for a console
error, a broken promise of the content policy, or a request to another origin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect, sync_playwright

from milepost import Jobs
from milepost.web import auth, create_app
from tests.dashboard.worker_server import PATIENCE, ROOT, SAME_ORIGIN, WorkerServer, wait_until_served
from tests.redis_server import RedisServer
from tests.services import free_port, need
from tests.waiting import until as wait_until

AXE = ROOT / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

# Words in the names of the jobs of `milepost.web.demo` that fail or hang.
ENDED_EARLY = frozenset({"encrypted", "malformed", "stuck", "unreachable"})


class Stage:
    """A process of `tests.dashboard.stage`. With `settle` seconds, as in the demo, its ETAs have not learned from the past jobs."""

    def __init__(
        self,
        past: int = 300,
        running: int = 12,
        ports: list[int] | None = None,
        hostile: int = 1,
        settle: float = 0.0,
    ) -> None:
        self.past = past
        self.ports = ports or [free_port(), free_port()]
        command = [
            sys.executable,
            "-m",
            "tests.dashboard.stage",
            *map(str, [*self.ports, past, running, hostile, settle]),
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.second = f"http://127.0.0.1:{self.ports[1]}"
        try:
            assert self.process.stdout is not None
            self.keys: dict[str, str] = json.loads(self.process.stdout.readline())
            for url in (self.url, self.second):
                wait_until_served(url, 4 * PATIENCE)  # ten thousand jobs are made first
        except BaseException:
            self.close()  # no fixture ends it yet
            raise

    @property
    def jobs(self) -> str:
        """Where the dashboard is."""
        return f"{self.url}/jobs/"

    def api(self, path: str, **parameters: Any) -> Any:
        """The answer of the API, as JSON."""
        return httpx.get(f"{self.url}/api/{path}", params=parameters, timeout=PATIENCE).raise_for_status().json()

    def running(self) -> list[dict[str, Any]]:
        """The jobs that a worker runs now."""
        found = self.api("jobs", q="status:running not.type:script not.is:stalled", limit=50)["jobs"]
        return [dict(job) for job in found]

    def lasting_job(self) -> str:
        """The running job that runs for longest: it neither fails, nor hangs, nor ends while a test looks at it."""
        seconds_left: dict[str, float] = {}
        for job in self.running():
            params = self.api(f"jobs/{job['job_id']}")["params"]
            name = params.get("path") or params.get("index") or ""
            if not any(word in name for word in ENDED_EARLY):
                seconds_left[str(job["job_id"])] = params.get("seconds", 0.0) * (1 - job["progress"])
        return max(seconds_left, key=lambda job_id: seconds_left[job_id])

    def has_begun(self) -> bool:
        """Whether it has a job of each status, and running jobs whose end can be forecast from earlier ones."""
        ended = [self.api("jobs", status=status, limit=1)["jobs"] for status in ("completed", "failed", "cancelled")]
        return all(ended) and any(job["eta"] is not None for job in self.running())

    def submit(self, name: str, job_type: str = "ingestion") -> str:
        """A new job, of which no page has asked; the worker starts it at once, unless its type is paused."""
        body = {"job_type": job_type, "params": {"path": name}}
        answer = httpx.post(f"{self.url}/api/jobs", json=body, headers=SAME_ORIGIN, timeout=PATIENCE)
        return str(answer.raise_for_status().json()["job_id"])

    @contextmanager
    def paused(self, job_type: str = "ingestion") -> Iterator[None]:
        """While this is open, no job of the type starts."""

        def pause(on: bool) -> None:
            address = f"{self.url}/api/job-types/{job_type}"
            httpx.patch(address, json={"paused": on}, headers=SAME_ORIGIN, timeout=PATIENCE).raise_for_status()

        pause(True)
        try:
            yield
        finally:
            pause(False)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    """A play of a few hundred jobs."""
    stage = Stage()
    try:
        wait_until(stage.has_begun)
        yield stage
    finally:
        stage.close()


@pytest.fixture(scope="package", params=["sqlite", "redis"])
def worker_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerServer]:
    """A server with a real worker, on each store."""
    with ExitStack() as stack:
        if request.param == "redis":
            url = stack.enter_context(RedisServer()).url
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('store')}/jobs.db"
        server = WorkerServer(url)
        stack.callback(server.close)
        yield server


@pytest.fixture
def server(worker_server: WorkerServer) -> Iterator[WorkerServer]:
    """The server of a store, left without active jobs and paused types."""
    yield worker_server
    worker_server.tidy()


@pytest.fixture(scope="package")
def browser(dashboard: Path) -> Iterator[Browser]:
    """Chromium."""
    path = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def until(page: Page, expression: str, argument: Any = None, patience: float = PATIENCE) -> None:
    """Wait until an expression, or a function of the argument, is true. The content policy forbids that the page itself
    evaluates it, as Playwright's own waiting for functions does."""
    deadline = time.monotonic() + patience
    while not page.evaluate(expression, argument):
        assert time.monotonic() < deadline, f"never: {expression}"
        page.wait_for_timeout(30)


def eventually(page: Page, holds: Callable[[], object]) -> None:
    """Wait until something outside of the page holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "never"
        page.wait_for_timeout(50)


def remember_toasts(page: Page) -> None:
    """Keep what every toast says from now on: one is shown for three seconds, which a busy machine may miss."""
    page.evaluate(
        """() => {
            window.toasts = []
            const note = () => document.querySelectorAll('.toast').forEach(one => window.toasts.push(one.textContent))
            new MutationObserver(note).observe(document.querySelector('.toasts'), {childList: true, subtree: true})
        }"""
    )


def expect_toast(page: Page, text: str) -> None:
    """Wait until a toast has said this since `remember_toasts`."""
    until(page, "text => window.toasts.some(one => one.includes(text))", text)


def axe(page: Page) -> list[str]:
    """What axe finds, in one line each. Evaluated, since the content policy lets no script in from outside."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8") + "; true")
    found: dict[str, Any] = page.evaluate("async () => await axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0]['failureSummary'][:200]}"
        for one in found["violations"]
    ]


def everything_read(page: Page) -> None:
    """Scroll to the end of thousands of jobs until all of them are in the list, and back to its top."""
    page.locator("#grid").focus()
    until(
        page,
        """() => {
            const grid = document.getElementById('grid')
            grid.scrollTop = grid.scrollHeight
            const count = Number(grid.getAttribute('aria-rowcount')) - 1
            return count > 0 && grid.scrollHeight >= 56 * count
        }""",
        patience=3 * PATIENCE,
    )
    page.evaluate("document.getElementById('grid').scrollTop = 0")


def work(session: CDPSession) -> tuple[float, float]:
    """Seconds of a processor that the main thread has taken, and the time, as Chromium counts them."""
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return metrics["ThreadTime"], metrics["Timestamp"]


class Watch:
    """What a context must not do: say errors, break the policy, speak to strangers."""

    def __init__(self, context: BrowserContext) -> None:
        self.wrong: list[str] = []
        self.forgiven: list[str] = []
        self.origins: set[str] = set()
        context.on(
            "console",
            lambda said: self._say(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None,
        )
        context.on("weberror", lambda raised: self._say(f"raised: {raised.error}"))
        context.on("request", lambda request: self.origins.add("/".join(request.url.split("/")[:3])))

    def _say(self, text: str) -> None:
        self.wrong.append(text)

    def check(self) -> None:
        """Fail for what went wrong."""
        wrong = [text for text in self.wrong if not any(part in text for part in self.forgiven)]
        assert not wrong, wrong
        strangers = [
            origin for origin in self.origins if not origin.startswith(("http://127.0.0.1:", "data:", "blob:"))
        ]
        assert not strangers, strangers
        assert len({origin for origin in self.origins if origin.startswith("http")}) <= 1


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Opens a page in a context of its own: `opened(url, width=, theme=)`; its `watch` is at `page.context.watch`."""
    contexts: list[tuple[BrowserContext, Watch]] = []

    def open_page(
        url: str, *, width: int = 1440, height: int = 900, theme: Literal["light", "dark"] = "light", **options: Any
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce", **options
        )
        context.set_default_timeout(PATIENCE * 1000)
        watch = Watch(context)
        contexts.append((context, watch))
        context.watch = watch  # type: ignore[attr-defined]
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context, watch in contexts:
        context.close()
        watch.check()


@pytest.fixture
def page(stage: Stage, opened: Opened) -> Page:
    """The list of jobs of the demo."""
    page = opened(stage.jobs, permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".body-row")
    return page


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Jobs, str]]:
    """Yield the jobs of a store, and where its dashboard is."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(store, auth=auth.none()), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    jobs = Jobs(store)
    try:
        wait_until_served(f"http://127.0.0.1:{port}", PATIENCE)
        yield jobs, f"http://127.0.0.1:{port}/jobs/"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        jobs.close()
