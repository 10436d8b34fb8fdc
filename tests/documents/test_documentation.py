"""The page about the document jobs: its commands and programs run as they stand, in one session, on real documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from milepost.documents.errors import CODES
from tests.docs.running import ROOT, blocks, run
from tests.documents.embedding_server import serving
from tests.documents.postgres_server import PostgresServer
from tests.documents.writing import PARAGRAPHS, write_docx

PAGE = (ROOT / "docs" / "documents.md").read_text(encoding="utf-8")
POSTGRES = "postgresql://user:password@db.example.org/papers"
MODELS = "http://127.0.0.1:8080/v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with papers in it."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "notes.txt").write_text("\n\n".join(PARAGRAPHS))
    write_docx(tmp_path / "papers" / "towers.docx")
    return tmp_path


@pytest.mark.timeout(240)
def test_the_page_runs_as_it_stands(folder: Path, redis_url: str, redis_namespace: str) -> None:
    with serving() as models:
        models.chat = lambda body: json.dumps({"entities": [{"name": "Ada Lovelace", "type": "PERSON"}]})
        page = [(kind, code.replace(MODELS, models.url), title) for kind, code, title in blocks(PAGE)]
        out = run([block for block in page if POSTGRES not in block[1]], folder, redis_url, redis_namespace)
    assert "Analytical Engine" in out
    assert {path for path, *_ in models.requests} == {"/v1/embeddings", "/v1/chat/completions"}


@pytest.mark.slow
@pytest.mark.service("postgresql")
def test_what_it_says_of_postgresql_runs(folder: Path, redis_url: str, redis_namespace: str) -> None:
    page = [block for block in blocks(PAGE) if POSTGRES in block[1]]
    with PostgresServer() as server:
        database = server.database("papers")
        out = run([(k, code.replace(POSTGRES, database), t) for k, code, t in page], folder, redis_url, redis_namespace)
    assert "Completed" in out


def test_every_code_of_a_bad_document_is_on_the_page() -> None:
    assert [code for code in CODES if f"`{code}`" not in PAGE] == []
