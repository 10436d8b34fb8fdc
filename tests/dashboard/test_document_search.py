"""The search in documents: passages of ingested files, filters, and texts that must not be markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from milepost.documents.jobs import HANDLERS, document_jobs
from tests.dashboard.conftest import Opened, axe
from tests.dashboard.stage import HOSTILE
from tests.documents.watched_run import WatchedRun
from tests.web.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CODE = "from milepost.cli import main; main(['serve', '--port', '{port}'])"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    """Serve the dashboard with three ingested documents."""
    papers = tmp_path / "papers"
    (papers / "towers").mkdir(parents=True)
    (papers / "engine.md").write_text("# The Analytical Engine\n\nAda Lovelace wrote notes on the Analytical Engine.")
    (papers / "towers" / "lamp.txt").write_text("The lamp beside the engine burns paraffin.")
    (papers / "hostile.html").write_text(f"<title>Engine</title><p>{HOSTILE.replace('<', '&lt;')} engine")
    HANDLERS["ingestion"](WatchedRun(), [str(papers)], database=str(tmp_path / "documents.db"), model="hashing:64")
    with Server(
        code=CODE, MILEPOST_DOCUMENTS=str(tmp_path / "documents.db"), MILEPOST_URL=f"sqlite:///{tmp_path}/jobs.db"
    ) as server:
        yield server


def ask(page: Page, text: str) -> None:
    page.get_by_label("Question or words").fill(text)
    page.get_by_role("button", name="Search", exact=True).click()


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_passages_are_found_and_filtered(served: Server, opened: Opened, theme: str, width: int) -> None:
    page = opened(f"{served.url}/jobs/?page=documents", theme=theme, width=width, height=844)
    ask(page, "analytical engine")
    passages = page.locator(".passage")
    expect(passages).to_have_count(3)
    expect(passages.first.locator("mark").first).to_have_text("Analytical")
    expect(passages.first).to_contain_text("papers/engine.md")
    assert "the Analytical Engine" in passages.first.locator("p").inner_text(), (
        "marks that are neighbours lost their space"
    )
    assert page.evaluate("window.hacked") is None
    expect(page.locator(".passage", has_text=HOSTILE)).to_have_count(1)
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".passage", has_text="paraffin").get_by_role("link", name="Only this folder").click()
    expect(passages).to_have_count(1)
    page.reload()
    expect(passages).to_have_count(1)
    expect(page.get_by_text("Only in")).to_contain_text("papers/towers")
    page.get_by_role("link", name="Search everywhere").click()
    page.get_by_label("Format").select_option("markdown")
    expect(passages).to_have_count(1)
    page.get_by_label("Rank by").select_option("words")
    ask(page, "xylophone")
    expect(page.get_by_text("Nothing found.")).to_be_visible()


def test_passages_are_filtered_by_metadata_and_owner(served: Server, opened: Opened, tmp_path: Path) -> None:
    papers = tmp_path / "papers"
    ingestion = document_jobs(owner_label="tenant", database=tmp_path / "documents.db")["ingestion"]
    ingestion(WatchedRun(), [str(papers)], metadata={"team": "towers, lamps"})
    ingestion(WatchedRun(labels={"tenant": "acme"}), [str(papers / "towers")], metadata={"year": 1843})
    page = opened(f"{served.url}/jobs/?page=documents", width=390, height=844)
    page.get_by_label("Metadata").fill("year=1843")
    ask(page, "paraffin lamp")
    passages = page.locator(".passage")
    expect(passages).to_have_count(1)
    page.reload()
    expect(page.get_by_label("Metadata")).to_have_value("year=1843")
    expect(passages).to_have_count(1)
    page.get_by_label("Metadata").fill("team=towers, lamps, team=none")
    ask(page, "paraffin lamp")
    expect(passages).to_have_count(3)
    page.get_by_label("Owner").fill("acme")
    page.get_by_label("Metadata").fill("")
    ask(page, "paraffin lamp")
    expect(passages).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
