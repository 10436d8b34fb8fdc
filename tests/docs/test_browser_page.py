"""docs/how-to/browser.md: its page shows a job in a real browser, signs in and cancels, with the code as written."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from milepost.client import Client
from milepost.core.errors import UnknownJobTypeError
from tests.docs.page_runner import ROOT, blocks
from tests.services import free_port, need
from tests.waiting import PATIENCE, until

KEYS = ("keys", "create", "page", "--scope", "jobs:read", "--scope", "jobs:write")
CLI = (sys.executable, "-c", "import sys; from milepost.cli import main; sys.exit(main())")


@pytest.mark.service("chromium")
def test_page_signs_in_shows_and_cancels_a_job(tmp_path: Path) -> None:
    page_blocks = blocks((ROOT / "docs/how-to/browser.md").read_text())
    for _, code, title in page_blocks:
        if title is not None:
            (tmp_path / title).write_text(code)
    [sign_in] = [code for language, code, title in page_blocks if language == "html" and title is None]
    environment = {**os.environ, "MILEPOST_URL": "sqlite:///jobs.db"}
    url = f"http://127.0.0.1:{(port := free_port())}"
    key = subprocess.run(
        [*CLI, *KEYS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        client = Client(url, key=key)
        job = until(lambda: _submitted(client))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(PATIENCE * 1000)
            page.on("dialog", lambda dialog: dialog.accept(key))
            page.goto(f"{url}/exports/{job}")
            page.wait_for_function("document.getElementById('status').textContent.includes('API key is required')")
            code = sign_in.partition('<script type="module">')[2].partition("</script>")[0]
            page.evaluate(f"async () => {{ {code} }}")
            page.reload()
            page.wait_for_function("document.getElementById('bar').value > 0")
            page.click("#cancel")
            page.wait_for_function("document.getElementById('status').textContent.startsWith('cancelled')")
            browser.close()
        assert client.wait(job).status == "cancelled"
        client.close()
    finally:
        server.terminate()
        server.wait()


def _submitted(client: Client) -> str | None:
    """Return the id of a new job, or None while the worker has not published its types."""
    with suppress(UnknownJobTypeError):
        return client.submit("export", {"rows": 100_000}).job_id
    return None
