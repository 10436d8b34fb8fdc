"""Document jobs submitted over HTTP read only below the root, within the operator's limits."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milepost.core.errors import InvalidInputError
from milepost.documents.document_root import DocumentRoot
from milepost.documents.file_selection import select_files
from milepost.documents.ingestion import NothingIngestedError
from milepost.documents.jobs import document_jobs
from milepost.documents.store import open_store
from milepost.worker.parameters import parameters_of
from tests.documents.embedding_server import Server, serving
from tests.documents.submitted_run import SubmittedRun
from tests.documents.watched_run import WatchedRun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="submitted paths need dir_fd")
SECRET = "the operator's secret text"


@pytest.fixture
def root(folder: Path, tmp_path: Path) -> Path:
    """Return a root with files, beside a secret that no path may reach."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.txt").write_text(SECRET)
    (folder / "a.txt").write_text("A text about towers.")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "c.md").write_text("A text about lamps.")
    (folder / ".hidden").write_text(SECRET)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "linked").symlink_to(tmp_path / "outside")
    return folder


@pytest.fixture
def submit(root: Path, database: str) -> Callable[..., dict[str, Any]]:
    """Run an ingestion as if its paths had been submitted over HTTP."""

    def run(*paths: str, **options: Any) -> dict[str, Any]:
        jobs = document_jobs(root=root, database=database, model="hashing:64")
        return jobs["ingestion"](SubmittedRun(), list(paths), **options)

    return run


def texts(database: str) -> str:
    store = open_store(database)
    try:
        return " ".join(segment.text for d in store.documents() for segment in store.segments(d.text_id))
    finally:
        store.close()


@pytest.mark.parametrize("path", ["a.txt", "./a.txt", "{root}/a.txt", "{root}//a.txt", "*.txt", "[a]*", "a.???"])
def test_submitted_path_inside_the_root_is_read(submit: Any, root: Path, database: str, path: str) -> None:
    result = submit(path.format(root=root))
    assert result["ingested"] == 1
    assert "towers" in texts(database)
    assert SECRET not in texts(database)


@pytest.mark.parametrize(
    "path", [".", "{root}", "**", "**/*", "deep", "deep/**/*.md", "*/er", "**/er/**", "d*/**/c.md"]
)
def test_submitted_folder_or_glob_stays_below_the_root(submit: Any, root: Path, database: str, path: str) -> None:
    submit(path.format(root=root))
    assert "lamps" in texts(database)
    assert SECRET not in texts(database)


OUTSIDE = [
    "../secret.txt", "{root}/../secret.txt", "deep/../../secret.txt", "{top}/secret.txt", "/etc/passwd", "/etc/shadow",
    "/proc/self/environ", "/proc/1/environ", "/dev/zero", "/dev/stdin", "/*/passwd", "/**", "../**", "../*", "{top}/*.txt",
    "a.txt\0/../../secret.txt", "\0", "{root}x/a.txt", "x" * 5000, "{root}/" + "d/" * 3000, "\ud800.txt",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_submitted_path_outside_the_root_is_refused(submit: Any, root: Path, tmp_path: Path, path: str) -> None:
    """A tenant's key could read any file of the worker."""
    with pytest.raises(InvalidInputError) as refused:
        submit(path.format(root=root, top=tmp_path))
    assert refused.value.field == "paths"


@pytest.mark.parametrize(
    ("owner", "path"),
    [("deep", "../a.txt"), ("deep", "{root}/a.txt"), ("deep", "{root}/deep/../a.txt"), ("deep", "/a.txt"),
     ("linked", "b.txt"), ("none", "."), ("a.txt", "."), ("..", "outside"), (".", "a.txt"), (".hidden", "."), ("deep/er", "c.md")],
)  # fmt: skip
def test_owner_reads_only_the_folder_of_its_name(root: Path, database: str, owner: str, path: str) -> None:
    jobs = document_jobs(root=root, database=database, model="hashing:64", owner_label="tenant")
    with pytest.raises(InvalidInputError) as refused:
        jobs["ingestion"](SubmittedRun({"tenant": owner}), [path.format(root=root)])
    assert refused.value.field == "paths"


@pytest.mark.parametrize("path", [".", "er", "er/c.md", "{root}/deep", "**/*.md"])
def test_paths_of_an_owner_are_relative_to_its_folder(root: Path, database: str, path: str) -> None:
    jobs = document_jobs(root=root, database=database, model="hashing:64", owner_label="tenant")
    assert jobs["ingestion"](SubmittedRun({"tenant": "deep"}), [path.format(root=root)])["ingested"] == 1
    assert "lamps" in texts(database)
    assert "towers" not in texts(database)


def test_refusal_does_not_reveal_whether_a_file_exists(submit: Any, root: Path, tmp_path: Path) -> None:
    """The error for a path revealed whether the file exists, and its kind."""
    answers = set()
    for name in ("secret.txt", "no such file", "outside"):
        with pytest.raises(InvalidInputError) as refused:
            submit(str(tmp_path / name))
        answers.add(str(refused.value).replace(name, "X"))
    assert len(answers) == 1


@pytest.mark.parametrize(
    "path", ["link.txt", "linked", "linked/b.txt", "linked/*", "link*", "~/id", "file:///etc/passwd", "fifo"]
)
def test_submitted_path_over_a_link_reads_nothing(submit: Any, root: Path, database: str, path: str) -> None:
    """A link inside a folder led to any file of the worker."""
    os.mkfifo(root / "fifo")
    with pytest.raises(NothingIngestedError):
        submit(path)
    assert texts(database) == ""


def test_folder_replaced_by_link_after_listing_is_not_read(root: Path, tmp_path: Path, database: str) -> None:
    """Between the check of a path and the read of its file, a folder could be replaced by a link to the outside."""
    jobs = document_jobs(root=root, database=database, model="hashing:64")
    run = SubmittedRun()

    def swap(run: WatchedRun) -> None:
        if (root / "deep").is_dir() and not (root / "deep").is_symlink():
            (root / "deep").rename(root / "moved")
            (tmp_path / "outside" / "er").mkdir()
            (tmp_path / "outside" / "er" / "c.md").write_text(SECRET)
            (root / "deep").symlink_to(tmp_path / "outside")

    run.watch = swap
    with pytest.raises(NothingIngestedError, match="link"):
        jobs["ingestion"](run, ["deep/er/c.md"])
    assert texts(database) == ""


def test_file_replaced_by_link_while_loading_is_not_reread(root: Path, tmp_path: Path, database: str) -> None:
    """The child that loads a file opened it again by its path, which could be a link by then."""
    [source] = select_files(["a.txt"], root=DocumentRoot(root)).sources
    with source.local_path(1000) as path:
        (root / "a.txt").unlink()
        (root / "a.txt").symlink_to(tmp_path / "secret.txt")
        assert path.read_text() == "A text about towers."
        assert path.parent.stat().st_mode & 0o077 == 0, "no other user can read the copy"
    assert not path.exists()


def test_submitted_paths_without_a_root_are_refused(root: Path, database: str) -> None:
    """A worker without a configured root read all submitted paths."""
    with pytest.raises(InvalidInputError, match="MILEPOST_DOCUMENTS_ROOT"):
        document_jobs(database=database)["ingestion"](SubmittedRun(), [str(root / "a.txt")])


def test_root_from_the_environment_confines_paths(submit: Any, root: Path, database: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("MILEPOST_DOCUMENTS_ROOT", str(root))
    monkeypatch.setenv("MILEPOST_DOCUMENTS", database)
    monkeypatch.setenv("MILEPOST_DOCUMENTS_MODEL", "hashing:64")
    handler = document_jobs()["ingestion"]
    assert handler(SubmittedRun(), ["a.txt"])["ingested"] == 1
    with pytest.raises(InvalidInputError):
        handler(SubmittedRun(), ["/etc/passwd"])


def test_local_job_needs_no_root(root: Path, database: str) -> None:
    jobs = document_jobs(database=database, model="hashing:64")
    assert jobs["ingestion"](WatchedRun(), [str(root / "link.txt")])["ingested"] == 1


def test_names_are_the_same_with_and_without_a_root(submit: Any, root: Path, database: str) -> None:
    submit("deep")
    jobs = document_jobs(database=database, model="hashing:64")
    assert jobs["ingestion"](WatchedRun(), [str(root / "deep")])["unchanged"] == 1


@pytest.mark.parametrize(
    "limit", [{"max_bytes": 10**15}, {"seconds_per_file": 1e300}, {"max_bytes": 0}, {"seconds_per_file": -1}]
)
def test_submitted_limits_are_only_lowered(submit: Any, limit: dict[str, Any]) -> None:
    """Submitters chose the limits per file."""
    with pytest.raises(InvalidInputError, match=next(iter(limit))):
        submit("a.txt", **limit)


def test_lower_limit_of_the_operator_holds(root: Path, database: str) -> None:
    jobs = document_jobs(root=root, database=database, model="hashing:64", max_bytes=10)
    with pytest.raises(NothingIngestedError, match="too_large"):
        jobs["ingestion"](SubmittedRun(), ["a.txt"])
    with pytest.raises(InvalidInputError, match="MILEPOST_DOCUMENTS_MAX_BYTES"):
        jobs["ingestion"](SubmittedRun(), ["a.txt"], max_bytes=11)


def test_key_is_one_line(submit: Any, database: str) -> None:
    """A key of several lines injected a line into the store's file."""
    submit("a.txt", key="\nssh-ed25519 AAAA attacker\n")
    store = open_store(database)
    try:
        assert [document.uri for document in store.documents()] == [" ssh-ed25519 AAAA attacker "]
    finally:
        store.close()
    with pytest.raises(InvalidInputError, match="key"):
        submit("a.txt", key="k" * 600)


@pytest.mark.parametrize("key", ["{outside}", "FILE:x", " file:///etc/passwd", "file:"])
def test_submitted_key_is_no_uri_of_a_file(submit: Any, tmp_path: Path, database: str, key: str) -> None:
    """A key equal to the URI of the operator's file replaced its document, and search showed the forged text."""
    secret = tmp_path / "secret.txt"
    document_jobs(database=database, model="hashing:64")["ingestion"](WatchedRun(), [str(secret)])
    with pytest.raises(InvalidInputError) as refused:
        submit("a.txt", key=key.format(outside=secret.as_uri()))
    assert refused.value.field == "key"
    assert texts(database) == SECRET
    assert document_jobs(database=database)["ingestion"](WatchedRun(), [str(secret)], key="file:x")["ingested"] == 1


HIDDEN = [
    ".hidden", "./.hidden", "{root}/.hidden", ".h*", ".*", "**/.hidden", "deep/.git", "deep/.git/config", "deep/.git/**", "deep/.*/config",
    "**/.git/*", "*/.g*/*", "deep/.missing", "...", "deep/[.]git", "[.]hidden", "?hidden", "*hidden", "deep/*/config", "[!a]hidden",
]  # fmt: skip


@pytest.mark.parametrize("path", HIDDEN)
def test_submitted_path_reads_nothing_hidden(submit: Any, root: Path, database: str, path: str) -> None:
    """A path, or a glob that began with a dot, read the .env and the .git of the root."""
    (root / "deep" / ".git").mkdir()
    (root / "deep" / ".git" / "config").write_text(SECRET)
    with pytest.raises((InvalidInputError, NothingIngestedError)) as refused:
        submit(path.format(root=root))
    if "." in {name[:1] for name in path.removeprefix("./").split("/")}:
        assert "hidden" in str(refused.value)
        assert isinstance(refused.value, InvalidInputError), "the same whether or not it is there"
    assert texts(database) == ""


def test_root_itself_may_be_hidden(root: Path, tmp_path: Path, database: str) -> None:
    hidden = tmp_path / ".papers" / ".kept"
    hidden.mkdir(parents=True)
    (hidden / "a.txt").write_text("A text about towers.")
    jobs = document_jobs(root=hidden, database=database, model="hashing:64")
    for path in (".", "a.txt", str(hidden / "a.txt"), str(hidden)):
        result = jobs["ingestion"](SubmittedRun(), [path])
        assert result["ingested"] + result["unchanged"] == 1


def test_globs_check_a_limited_number_of_files(submit: Any, root: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("milepost.documents.document_root.MAX_FILES_CHECKED", 3)
    with pytest.raises(InvalidInputError, match="match more than"):
        submit("**/**/*")


@pytest.mark.parametrize("job_type", ["ingestion", "extraction", "reindex", "clustering"])
def test_parameters_of_the_operator_are_refused_by_the_worker(job_type: str) -> None:
    """Submitters chose database, endpoint, model file and language model."""
    known = parameters_of(document_jobs()[job_type])
    names = [name for name in known.names if name in ("database", "model", "model_path", "endpoint", "llm_model")]
    assert "database" in names
    rest = {"paths": '["a"]'} if job_type == "ingestion" else {}
    for name in names:
        params = ", ".join([f'"{name}": "x"', *(f'"{other}": {value}' for other, value in rest.items())])
        with pytest.raises(InvalidInputError) as refused:
            known.of({"params": f"{{{params}}}", "origin": "api"})
        assert refused.value.field == name
        assert known.of({"params": f"{{{params}}}"})[name] == "x"


# --- keys and endpoints ---


@pytest.fixture
def servers() -> Any:
    with serving() as operators, serving() as attackers:
        yield operators, attackers


def authorizations(server: Server) -> set[str | None]:
    return {headers.get("Authorization") for _, _, headers in server.requests}


def test_key_is_sent_to_its_own_url_only(servers: Any, root: Path, database: str) -> None:
    """The operator's embedding key was sent to any endpoint that a job named."""
    operators, others = servers
    jobs = document_jobs(database=database, embedding_url=operators.url, embedding_key="sk-operator")
    jobs["ingestion"](WatchedRun(), [str(root / "a.txt")], model="http:m", endpoint=others.url)
    assert authorizations(others) == {None}
    (root / "a.txt").write_text("Another text.")
    jobs["ingestion"](WatchedRun(), [str(root / "a.txt")])
    assert authorizations(operators) == {"Bearer sk-operator"}


def test_llm_key_is_sent_to_its_own_url_only(servers: Any, root: Path, database: str) -> None:
    """The operator's language model key was sent to any endpoint that a job named."""
    operators, others = servers
    operators.chat = others.chat = lambda body: '{"entities": []}'
    jobs = document_jobs(database=database, model="hashing:64", llm_url=operators.url + "/", llm_key="sk-operator")
    jobs["ingestion"](WatchedRun(), [str(root / "a.txt")])
    jobs["extraction"](WatchedRun(), extractor="llm", endpoint=others.url, embed=False, llm_model="one")
    assert authorizations(others) == {None}
    jobs["extraction"](WatchedRun(), extractor="llm", embed=False)
    assert authorizations(operators) == {"Bearer sk-operator"}


def test_endpoint_is_not_kept_in_the_index(servers: Any, root: Path, database: str, monkeypatch: Any) -> None:
    """An endpoint that one job named received every later search, with the server's key."""
    operators, others = servers
    jobs = document_jobs(database=database)
    jobs["ingestion"](WatchedRun(), [str(root / "a.txt")], model="http:m", endpoint=others.url)
    assert others.url.encode() not in Path(database).read_bytes()
    others.requests.clear()
    monkeypatch.setenv("MILEPOST_EMBEDDING_URL", operators.url)
    from milepost.documents import search

    assert search("towers", database=database)
    assert operators.requests
    assert not others.requests


def test_key_of_the_environment_does_not_go_to_a_given_url(servers: Any, monkeypatch: Any) -> None:
    operators, others = servers
    monkeypatch.setenv("MILEPOST_EMBEDDING_URL", operators.url)
    monkeypatch.setenv("MILEPOST_EMBEDDING_KEY", "sk-environment")
    from milepost.documents.configuration import from_environment

    assert from_environment().embedding() == (operators.url, "sk-environment")
    assert from_environment().embedding(others.url) == (others.url, None)
