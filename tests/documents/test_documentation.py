"""docs/documents.md: its commands and programs run as written, in one session, on real documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from milepost.documents.errors import CODES
from tests.docs.page_runner import ROOT, blocks, run
from tests.documents.embedding_server import serving
from tests.documents.sample_files import PARAGRAPHS, write_docx
from tests.postgres_server import PostgresServer

PAGE = (ROOT / "docs" / "documents.md").read_text(encoding="utf-8")
POSTGRES = "postgresql://user:password@db.example.org/papers"
MODELS = "http://127.0.0.1:8080/v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with papers."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "notes.txt").write_text("\n\n".join(PARAGRAPHS))
    write_docx(tmp_path / "papers" / "towers.docx")
    return tmp_path


@pytest.mark.timeout(600)
def test_commands_on_the_page_run(folder: Path, redis_url: str, redis_namespace: str) -> None:
    with serving() as models:
        models.chat = lambda body: json.dumps({"entities": [{"name": "Ada Lovelace", "type": "PERSON"}]})
        page = [(kind, code.replace(MODELS, models.url), title) for kind, code, title in blocks(PAGE)]
        out = run([block for block in page if POSTGRES not in block[1]], folder, redis_url, redis_namespace)
    assert "Analytical Engine" in out
    assert {path for path, *_ in models.requests} == {"/v1/embeddings", "/v1/chat/completions", "/v1/rerank"}


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_postgresql_commands_on_the_page_run(folder: Path, redis_url: str, redis_namespace: str) -> None:
    page = [block for block in blocks(PAGE) if POSTGRES in block[1]]
    with PostgresServer() as server:
        database = server.database("papers")
        out = run([(k, code.replace(POSTGRES, database), t) for k, code, t in page], folder, redis_url, redis_namespace)
    assert "Completed" in out


def test_page_lists_every_document_error_code() -> None:
    assert [code for code in CODES if f"`{code}`" not in PAGE] == []
