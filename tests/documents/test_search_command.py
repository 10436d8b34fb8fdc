"""What `milepost search`, `entities`, `neighbours` and `communities` print."""

from __future__ import annotations

from pathlib import Path

import pytest

from milepost.cli.commands.search import telling_part
from milepost.cli.program import run_program
from milepost.documents import searching
from milepost.documents.jobs import HANDLERS
from tests.documents.embedding_server import serving
from tests.documents.watched_run import WatchedRun
from tests.documents.writing import PARAGRAPHS
from tests.web.server import Server


@pytest.fixture
def database(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The document store that the commands ask; nothing is in it yet."""
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
def test_where_nothing_is_the_command_that_comes_first_is_said(
    words: list[str], first: str, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(words)
    assert capsys.readouterr().out.endswith(f": {first}\n")


def test_what_was_found_is_printed(folder: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="hashing:64")
    HANDLERS["extraction"](WatchedRun(), extractor="rules")
    assert run_program(["search", "Ada Lovelace", "-k", "1"]) == 0
    out = capsys.readouterr().out
    assert "a.txt" in out
    assert "Ada Lovelace" in " ".join(out.split())
    assert run_program(["entities", "lovelace"]) == 0
    assert "Ada Lovelace" in capsys.readouterr().out


def test_beside_a_server_it_is_the_servers_documents_that_are_asked(
    folder: Path, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="hashing:64")
    HANDLERS["extraction"](WatchedRun(), extractor="rules")
    HANDLERS["clustering"](WatchedRun(), of="chunks")
    commands = (
        ["search", "Ada Lovelace", "-k", "2"], ["entities"], ["neighbours", "Ada Lovelace"], ["communities", "--of", "chunks"],
    )  # fmt: skip

    def answers(*more: str) -> list[str]:
        told = []
        for words in commands:
            assert run_program([*words, "--json", *more]) == 0
            told.append(capsys.readouterr().out)
        return told

    here = answers()
    assert here[0]
    assert here[1]
    code = "from milepost.cli import main; main(['serve', '--port', '{port}'])"
    with Server(code=code, MILEPOST_DOCUMENTS=str(database), MILEPOST_URL=f"sqlite:///{tmp_path}/jobs.db") as server:
        monkeypatch.setenv("MILEPOST_DOCUMENTS", str(tmp_path / "nobodys.db"))
        assert answers("--url", server.url) == here
        assert run_program(["draw", str(tmp_path / "graph.svg"), "--url", server.url]) == 2
        assert "--database" in capsys.readouterr().err


def test_an_endpoint_that_refuses_or_is_away_is_said_in_one_line(
    folder: Path, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        monkeypatch.setenv("MILEPOST_EMBEDDING_URL", server.url)
        HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="http:m")
        server.failures = [(401, {}, b"bad key")]
        assert run_program(["search", "towers"]) == 1
        assert capsys.readouterr().err.endswith("answered 401: bad key\n")
    monkeypatch.setattr(searching, "PATIENCE", 0.1)
    assert run_program(["search", "towers"]) == 1
    [said] = capsys.readouterr().err.splitlines()
    assert "cannot be reached" in said


def test_a_hit_is_shown_from_the_sentence_that_answers() -> None:
    text = "The release was late. It had no name. Debian 2.2 Potato: Named for a toy. Others were not."
    assert telling_part(text, "Which one is named for a toy?", 40) == text.index("Debian 2.2")
    assert telling_part(text, "what about xylophones", 40) == 0
    assert telling_part("", "anything", 40) == 0
