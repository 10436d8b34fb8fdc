"""`make fullstack` from a fresh clone: an upload is seen moving in Chromium, and its result after a reload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.services import free_port, need
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.service("postgresql")
@pytest.mark.service("chromium")
def test_upload_moves_in_browser(tmp_path: Path) -> None:
    clone, port = tmp_path / "clone", free_port()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    # The environment of the tests stands for the one that the command sets up, which takes minutes: -o leaves it as it is.
    command = [
        "make",
        "-o",
        ".venv/.dev",
        "fullstack",
        f"PY={sys.executable}",
        f"ARGS=--port {port} --log-level warning",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "MILEPOST_URL"}
    environment["PYTHONPATH"] = str(clone / "src")
    process = subprocess.Popen(command, cwd=clone, env=environment, start_new_session=True)

    def answers() -> bool:
        assert process.poll() is None, "the example ended while it started"
        try:
            return httpx.get(f"http://127.0.0.1:{port}/uploads").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers)
        text = tmp_path / "poem.txt"
        text.write_text("two words\n" * 400)  # 8 s
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/")
            page.set_input_files("#file", text)
            moving = "() => { const bar = document.querySelector('progress'); return bar !== null && bar.value > 0 && bar.value < 1; }"
            page.wait_for_function(moving, timeout=60_000)
            page.wait_for_selector("text=800 words", timeout=60_000)
            page.reload()
            page.wait_for_selector("text=800 words", timeout=60_000)
            text.write_text("two words\n" * 4000)  # longer than it takes to press the button
            page.set_input_files("#file", text)
            page.click("button:visible", timeout=60_000)
            page.wait_for_selector("text=cancelled", timeout=60_000)
            browser.close()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
