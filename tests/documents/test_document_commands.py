"""`milepost documents ls`, `show` and `rm`, on a document store and through a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from milepost.cli.root_command import run_program
from milepost.core.errors import InvalidInputError
from milepost.documents import delete_document, get_document, list_documents
from milepost.documents.jobs import HANDLERS
from tests.documents.sample_files import PARAGRAPHS
from tests.documents.watched_run import WatchedRun
from tests.web.server import Server


@pytest.fixture
def papers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of three ingested documents."""
    monkeypatch.setenv("MILEPOST_DOCUMENTS", str(tmp_path / "documents.db"))
    (folder / "towers").mkdir()
    for name in ("a.txt", "towers/b.md", "towers/c.txt"):
        (folder / name).write_text(f"# {name}\n\n{PARAGRAPHS[0]}")
    HANDLERS["ingestion"](WatchedRun(), [str(folder)], model="hashing:64")
    return folder


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert run_program(["documents", "ls", *words, "--json"]) == 0
    return [Path(json.loads(line)["uri"]).name for line in capsys.readouterr().out.splitlines()]


def test_documents_are_listed_shown_and_deleted(papers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys) == ["a.txt", "b.md", "c.txt"]
    assert rows(capsys, "--under", str(papers / "towers")) == ["b.md", "c.txt"]
    assert rows(capsys, "--format", "markdown") == ["b.md"]
    assert run_program(["documents", "show", str(papers / "a.txt")]) == 0
    assert (papers / "a.txt").as_uri() in capsys.readouterr().out
    assert run_program(["documents", "rm", str(papers / "a.txt"), str(papers / "towers" / "b.md"), "--yes"]) == 0
    assert "Deleted 2 documents" in capsys.readouterr().out
    assert rows(capsys) == ["c.txt"]
    assert (papers / "a.txt").exists()
    assert run_program(["documents", "rm", str(papers / "a.txt"), "--yes"]) == 1
    assert "milepost documents ls" in capsys.readouterr().err
    assert run_program(["search", "lighthouse", "--under", str(papers / "a.txt")]) == 1
    assert "Nothing found" in capsys.readouterr().out


def test_server_deletes_its_documents(
    papers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from milepost.cli import main; main(['serve', '--port', '{port}'])"
    database = str(tmp_path / "documents.db")
    with Server(code=code, MILEPOST_DOCUMENTS=database, MILEPOST_URL=f"sqlite:///{tmp_path}/jobs.db") as server:
        monkeypatch.setenv("MILEPOST_DOCUMENTS", str(tmp_path / "missing.db"))
        url = ("--url", server.url)
        assert rows(capsys, *url) == ["a.txt", "b.md", "c.txt"]
        assert run_program(["documents", "rm", str(papers / "a.txt"), "--yes", *url]) == 0
        capsys.readouterr()
        assert rows(capsys, *url) == ["b.md", "c.txt"]
        assert rows(capsys, "--owner", "a", *url) == []
        assert run_program(["documents", "ls", "--json", *url]) == 0
        document_id = json.loads(capsys.readouterr().out.splitlines()[0])["document_id"]
        assert run_program(["documents", "rm", document_id, "--owner", "a", "--yes", *url]) == 1
        assert "no document" in capsys.readouterr().err
        assert run_program(["documents", "show", "0" * 32, *url]) == 1
        assert "milepost documents ls" in capsys.readouterr().err


@pytest.fixture
def shared(papers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that two owners and a job without an owner have ingested."""
    monkeypatch.setenv("MILEPOST_DOCUMENTS_OWNER_LABEL", "tenant")
    for tenant in ("a", "b"):
        HANDLERS["ingestion"](WatchedRun(labels={"tenant": tenant}), [str(papers / "a.txt")], model="hashing:64")
    return papers / "a.txt"


def owners_of(file: Path) -> list[str]:
    return sorted(document.owner for document in list_documents(under=file.as_uri()))


@pytest.mark.parametrize("command", [("show",), ("rm", "--yes")])
def test_command_refuses_a_path_of_several_owners(
    shared: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program(["documents", *command, str(shared)]) == 1
    assert "several owners have" in (error := capsys.readouterr().err)
    assert "milepost documents ls --json" in error
    assert owners_of(shared) == ["", "a", "b"]
    assert run_program(["documents", *command, str(shared), "--owner", "c"]) == 1
    assert owners_of(shared) == ["", "a", "b"]


def test_rm_deletes_the_document_of_an_owner_or_id(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["documents", "show", str(shared), "--owner", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["owner"] == "b"
    assert run_program(["documents", "rm", str(shared), "--owner", "b", "--yes"]) == 0
    assert owners_of(shared) == ["", "a"]
    [mine] = [document for document in list_documents(under=shared.as_uri()) if document.owner == "a"]
    assert run_program(["documents", "rm", mine.document_id, "--yes"]) == 0
    assert owners_of(shared) == [""]


def test_python_refuses_a_uri_of_several_owners(shared: Path) -> None:
    for function in (get_document, delete_document):
        with pytest.raises(InvalidInputError, match="several owners"):
            function(shared.as_uri())
    found = get_document(shared.as_uri(), owner="b")
    assert found is not None
    assert get_document(found.document_id, owner="a") is None
    assert not delete_document(found.document_id, owner="a")
    assert delete_document(shared.as_uri(), owner="b")
    assert owners_of(shared) == ["", "a"]


def test_python_lists_and_deletes(papers: Path) -> None:
    uris = [document.uri for document in list_documents(under=(papers / "towers").as_uri())]
    assert [Path(uri).name for uri in uris] == ["b.md", "c.txt"]
    found = get_document(uris[0])
    assert found is not None
    assert (found.format, found.chunk_count) == ("markdown", 1)
    assert delete_document(found.document_id)
    assert not delete_document(uris[0])
    assert get_document(uris[0]) is None
