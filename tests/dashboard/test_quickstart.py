"""Jobs of the quickstart's scripts: every place shows the same line for them, and never the default message."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.conftest import PATIENCE, ROOT, SAME_ORIGIN, Opened
from tests.dashboard.worker_server import row
from tests.docs.page_runner import blocks
from tests.redis_server import RedisServer
from tests.security.live_server import MILEPOST, LiveServer

pytestmark = pytest.mark.timeout(300)

STORES = {"redis": 'RedisJobManager("{url}")', "sqlite": 'SQLiteJobManager("jobs.db")'}


class Quickstart:
    """The Python programs of the quickstart, in a folder."""

    def __init__(self, folder: Path, url: str, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {**environment, "MILEPOST_URL": url, "PYTHONPATH": f"{folder}:{ROOT}"}
        page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
        track, app, submit = [(code, title) for language, code, title in blocks(page) if language == "python"]
        assert (track[1], app[1], submit[1]) == ("first.py", "app.py", None)
        manager = STORES["redis" if url.startswith("redis") else "sqlite"].format(url=url)
        code = track[0].replace('SQLiteJobManager("jobs.db")', manager)
        assert manager in code
        imported = manager.partition("(")[0]
        (folder / "first.py").write_text(code.replace("import SQLiteJobManager", f"import {imported}"))
        (folder / "app.py").write_text(app[0])
        (folder / "submit.py").write_text(submit[0])

    def run(self, *command: str) -> str:
        """Run a command to its end; return what it prints."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
                              timeout=PATIENCE, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def milepost(self, *arguments: str) -> str:
        """Run the command line on the store."""
        return self.run(*MILEPOST, *arguments)

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run `milepost worker app:jobs`."""
        process = subprocess.Popen([*MILEPOST, "worker", "app:jobs"], cwd=self.folder, env=self.environment)
        try:
            yield
        finally:
            process.kill()
            process.wait()


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Quickstart, LiveServer]]:
    """The programs, and a server that asks for keys, on one store."""
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/jobs.db"
        if request.param == "redis":
            url = stack.enter_context(RedisServer()).url
        server = stack.enter_context(LiveServer(url, "mp", "--auth", "keys"))
        environment = {**os.environ, "MILEPOST_NAMESPACE": server.namespace, "XDG_STATE_HOME": str(tmp_path / "state")}
        yield Quickstart(tmp_path, url, environment), server


def element_line(page: Page, job_id: str, token: str) -> str:
    """What `<milepost-job>` shows of a job."""
    page.evaluate(
        """async ([id, share]) => {
            await import(new URL('milepost-job.js', location.href).href)
            document.querySelector('milepost-job')?.remove()
            const one = document.createElement('milepost-job')
            one.setAttribute('src', `/api/jobs/${id}`)
            one.setAttribute('share', share)
            document.body.append(one)
        }""",
        [job_id, token],
    )
    expect(page.locator("milepost-job [part=name]")).not_to_be_empty()
    return page.locator("milepost-job [part=activity]").inner_text()


def test_each_place_shows_the_same_line_of_a_quickstart_job(
    place: tuple[Quickstart, LiveServer], opened: Opened
) -> None:
    scripts, server = place
    scripts.run(sys.executable, "first.py")
    scripts.run(sys.executable, "submit.py")
    with scripts.worker():
        submitted = scripts.milepost("submit", "reindex", "index=docs", "pause=3600")
        running = re.findall(r"[0-9a-f-]{36}", submitted)[0]
        submitted = scripts.milepost("submit", "reindex", "index=docs", "pause=-1", "--max-attempts", "1")
        failed = re.findall(r"[0-9a-f-]{36}", submitted)[0]
        page = opened(f"{server.url}/jobs/#signin={server.link}", width=1600)
        expect(page.locator(".body-row")).to_have_count(4)
        expect(row(page, running).locator(".message")).to_have_text("Embedding 0 of 100 chunks")
        expect(row(page, failed).locator(".message")).to_contain_text("sleep length must be non-negative")
        ids = page.locator(".body-row").evaluate_all("all => all.map(one => one.id.slice(4))")
        listed = scripts.milepost("ls")
        assert "Job created" not in listed
        for job_id in ids:
            line = row(page, job_id).locator(".message").inner_text()
            row(page, job_id).locator(".name").click()
            expect(row(page, job_id)).to_have_class(re.compile("open"))
            expect(page.locator(".pane .facts")).to_contain_text(job_id[:13])
            expect(page.locator(".pane .says")).to_have_text(line)
            assert "Job created" not in page.inner_text("body")
            made = page.context.request.post(f"{server.url}/api/jobs/{job_id}/share", headers=SAME_ORIGIN, data={})
            token = made.json()["token"]
            guest = opened(f"{server.url}/jobs/?page=job&job={job_id}&share={token}")
            guest.context.watch.forgiven += ["status of 401", "status of 403"]  # type: ignore[attr-defined]
            expect(guest.locator(".says")).to_have_text(line)
            assert "Job created" not in guest.inner_text("body")
            assert element_line(guest, job_id, token) == line
            assert re.search(rf"^{job_id} .*\+00:00 *{re.escape(line)}$", listed, re.MULTILINE), listed
