"""The output of `milepost search`, `entities`, `neighbours` and `communities`."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.cli.root_command import run_program
from milepost.documents import retrieval
from milepost.documents.commands import best_excerpt_start
from milepost.documents.jobs import HANDLERS
from tests.documents.embedding_server import serving
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun
from tests.web.server import Server


@pytest.fixture
def database(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the empty document store that the commands use."""
    (folder / "a.txt").write_text("\n\n".join(PARAGRAPHS))
    monkeypatch.setenv("MILEPOST_DOCUMENTS", str(tmp_path / "documents.db"))
    return tmp_path / "documents.db"


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["search", "towers"], "milepost run ingestion PATH..."),
        (["entities"], "milepost run extraction"),
        (["communities"], "milepost run clustering of=entities"),
        (["communities", "--of", "chunks"], "milepost run clustering of=chunks"),
        (["neighbours", "Ada", "Love lace"], "milepost entities Ada 'Love lace'"),
        (["entities", "Ada"], "milepost entities"),
    ],
)
def test_empty_store_error_names_the_first_command(
    words: list[str], first: str, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(words)
    assert capsys.readouterr().out.endswith(f": {first}\n")


def test_results_are_printed(folder: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="hashing:64")
    HANDLERS["extraction"](WatchedRun(), extractor="rules")
    assert run_program(["search", "Ada Lovelace", "-k", "1"]) == 0
    out = capsys.readouterr().out
    assert "a.txt" in out
    assert "Ada Lovelace" in " ".join(out.split())
    assert run_program(["entities", "lovelace"]) == 0
    assert "Ada Lovelace" in capsys.readouterr().out


def test_search_through_a_server_uses_its_documents(
    folder: Path, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="hashing:64")
    HANDLERS["extraction"](WatchedRun(), extractor="rules")
    HANDLERS["clustering"](WatchedRun(), of="chunks")
    commands = (
        ["search", "Ada Lovelace", "-k", "2"], ["entities"], ["neighbours", "Ada Lovelace"], ["communities", "--of", "chunks"],
    )  # fmt: skip

    def answers(*more: str) -> list[str]:
        outputs = []
        for words in commands:
            assert run_program([*words, "--json", *more]) == 0
            outputs.append(capsys.readouterr().out)
        return outputs

    here = answers()
    assert here[0]
    assert here[1]
    code = "from milepost.cli import main; main(['serve', '--port', '{port}'])"
    with Server(code=code, MILEPOST_DOCUMENTS=str(database), MILEPOST_URL=f"sqlite:///{tmp_path}/jobs.db") as server:
        monkeypatch.setenv("MILEPOST_DOCUMENTS", str(tmp_path / "missing.db"))
        assert answers("--url", server.url) == here
        assert run_program(["draw", str(tmp_path / "graph.svg"), "--url", server.url]) == 2
        assert "--database" in capsys.readouterr().err


def test_endpoint_error_is_one_line(
    folder: Path, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        monkeypatch.setenv("MILEPOST_EMBEDDING_URL", server.url)
        HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="http:m")
        server.failures = [(401, {}, b"bad key")]
        assert run_program(["search", "towers"]) == 1
        assert capsys.readouterr().err.endswith("responded with status 401: bad key\n")
    monkeypatch.setattr(retrieval, "MAX_WAIT_SECONDS", 0.1)
    assert run_program(["search", "towers"]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert "could not connect" in said


def test_hit_excerpt_begins_at_the_matching_sentence() -> None:
    text = "The release was late. It had no name. Debian 2.2 Potato: Named for a toy. Others were not."
    assert best_excerpt_start(text, "Which one is named for a toy?", 40) == text.index("Debian 2.2")
    assert best_excerpt_start(text, "what about xylophones", 40) == 0
    assert best_excerpt_start("", "anything", 40) == 0
