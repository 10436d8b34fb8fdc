"""The page "Django" of the documentation, followed word by word: from an empty folder to a moving bar in the admin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import FrameLocator, Page, expect, sync_playwright

from tests.dashboard.conftest import FLAGS
from tests.django.environments import ROOT
from tests.docs.page_runner import blocks, check_set_up
from tests.services import free_port, need
from tests.waiting import until

PAGE = ROOT / "docs" / "how-to" / "django.md"
PASSWORD = "only for tests"


class Reader:
    """Follows the page in an empty folder. The commands are run as written, on a free port and without a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = str(free_port())
        self.commands = 0
        self.started: dict[str, subprocess.Popen[str]] = {}
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DJANGO_SUPERUSER_USERNAME": "ana",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "DJANGO_SUPERUSER_EMAIL": "ana@example.com",
        }

    def follow(self, text: str) -> None:
        """Do what the blocks of the page say, in their order."""
        for language, code, title in blocks(text):
            if language == "python":
                assert title is not None
                with (self.folder / title).open("a") as file:
                    file.write(code)
            elif language == "console":
                for command in re.findall(r"^\$ (.*)$", code, re.MULTILINE):
                    self.run(command)

    def run(self, command: str) -> None:
        """Run a command; leave a worker or server running."""
        if command.startswith("pip "):
            check_set_up(command)
            return
        self.commands += 1
        if command.endswith("createsuperuser"):
            command += " --noinput"
        name = command.split()[-1 if command[-1] != "&" else -2]
        if name in ("runserver", "milepost_worker"):
            arguments = command.removesuffix("&").split() + [self.port] * (name == "runserver")
            log = (self.folder / f"{name}.log").open("w")
            self.started[name] = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        else:
            subprocess.run(command.split(), cwd=self.folder, env=self.environment, check=True, timeout=120)

    def log(self, name: str) -> str:
        """Return the output of a started command."""
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        """End what was started, with the processes that it started."""
        for process in self.started.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Yield a reader who has followed the page."""
    reader = Reader(tmp_path)
    try:
        reader.follow(PAGE.read_text())
        yield reader
    finally:
        reader.stop()


@pytest.fixture
def page() -> Iterator[Page]:
    """Yield a page of a real browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=FLAGS)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


def percent(frame: FrameLocator) -> int:
    """Return the progress that the dashboard shows."""
    found = re.search(r"(\d+)%", frame.locator("body").inner_text())
    return int(found[1]) if found else -1


@pytest.mark.timing
@pytest.mark.service("chromium")
@pytest.mark.usefixtures("dashboard")
def test_page_leads_to_a_moving_bar_in_the_admin(reader: Reader, page: Page) -> None:
    assert reader.commands == 5
    site = f"http://127.0.0.1:{reader.port}"
    until(lambda: "milepost worker: 1 tasks" in reader.log("milepost_worker"))
    until(lambda: "Quit the server" in reader.log("runserver"))
    page.goto(f"{site}/admin/", timeout=60_000)
    page.fill("#id_username", "ana")
    page.fill("#id_password", PASSWORD)
    page.click("input[type=submit]")
    page.wait_for_url(f"{site}/admin/")
    page.goto(f"{site}/reports/2026")
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("mysite.tasks.report")).to_be_visible()
    until(lambda: percent(frame) > 0)
    first = percent(frame)
    (reader.folder / "mysite" / "tasks.py").touch()  # the worker restarts, and runs the task from its start
    until(lambda: reader.log("milepost_worker").count("milepost worker: 1 tasks") == 2)
    until(lambda: percent(frame) > first + 1)
    page.screenshot(path=str(reader.folder / "admin.png"))
    assert "Traceback" not in reader.log("milepost_worker") + reader.log("runserver")
