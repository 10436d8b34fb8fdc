"""Takes the pictures of docs/dashboard.md and docs/documents.md: `python -m tests.dashboard.pictures`; with a
folder, every page in both themes and widths."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

from milepost.web.demo import SETTLE
from tests.cli.subprocesses import COMMAND
from tests.dashboard.conftest import FLAGS, ROOT, Stage
from tests.services import need
from tests.web.server import Server

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
KEPT: dict[str, tuple[str, int, Theme]] = {"jobs-light": ("running", 1440, "light"), "jobs-dark": ("failed", 1440, "dark"), "jobs-phone": ("list", 390, "light"),
        "overview-light": ("overview", 1440, "light"), "search-light": ("search", 1440, "light")}  # fmt: skip


@contextmanager
def documents(folder: Path) -> Iterator[str]:
    """The address of a server with the documents of the demo, which the command line has ingested."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "demo_corpus.py"), str(folder / "papers")], check=True)
    store = {"MILEPOST_DOCUMENTS": str(folder / "documents.db"), "MILEPOST_URL": f"sqlite:///{folder}/jobs.db"}
    ingestion = [*COMMAND, "run", "ingestion", str(folder / "papers"), "key=papers"]
    subprocess.run(ingestion, env={**os.environ, "PYTHONPATH": str(ROOT), **store}, check=True)
    with Server(code="from milepost.cli import main; main(['serve', '--port', '{port}'])", **store) as server:
        yield server.url


def places(stage: Stage, documents: str) -> dict[str, str]:
    """The address of every page, by a name for its picture."""
    job = {name: stage.api("jobs", q=f"status:{name}", limit=1)["jobs"][0]["job_id"]
           for name in ("running", "failed", "completed", "cancelled")}  # fmt: skip
    while not (found := stage.api("jobs", q="is:stalled", limit=1)["jobs"]):
        time.sleep(0.2)
    stalled = found[0]["job_id"]
    pages = {
        "list": "",
        "running": f"?job={job['running']}",
        "failed": f"?job={job['failed']}",
        "stalled": f"?tab=stalled&job={stalled}",
        "cancelled": f"?tab=cancelled&job={job['cancelled']}&part=events",
        "job": f"?page=job&job={job['completed']}",
        "failures": "?page=failures",
        "overview": "?page=overview",
        "types": "?page=types",
        "submit": "?page=types&type=ingestion",
        "workers": "?page=workers",
        "nothing": "?q=type:nosuch%20word",
        "gone": "?page=job&job=nosuch",
    }
    search = "/jobs/?page=documents&ask=Who%20started%20the%20port%20to%20Motorola%20m68k?"
    return {"search": documents + search, **{name: stage.jobs + page for name, page in pages.items()}}


def take(page: Page, address: str, file: Path) -> None:
    """One picture, when everything has come."""
    page.goto(address)
    page.wait_for_load_state("load")
    page.wait_for_timeout(2500)
    page.get_by_text("Searching…").wait_for(state="hidden")
    page.screenshot(path=file)


def main(folder: Path | None) -> None:
    """Take them."""
    with ExitStack() as opened:
        place = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="milepost-pictures-")))
        url = opened.enter_context(documents(place))
        stage = Stage(past=900, running=32, hostile=0, settle=SETTLE)
        opened.callback(stage.close)
        while not stage.has_begun():
            time.sleep(1.0)
        where = places(stage, url)
        everything = {f"{name}-{theme}-{width}": (name, width, theme) for name in where for theme in THEMES
                      for width in (1440, 390)}  # fmt: skip
        target = folder or ROOT / "docs" / "pictures"
        target.mkdir(parents=True, exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=need("chromium"), args=FLAGS)
            for file, (name, width, theme) in (everything if folder else KEPT).items():
                context = browser.new_context(
                    viewport={"width": width, "height": 900 if width > 600 else 844}, color_scheme=theme
                )
                take(context.new_page(), where[name], target / f"{file}.png")
                context.close()
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
