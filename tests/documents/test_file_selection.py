"""Which files paths select, and how documents are identified."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from milepost.documents.file_selection import select_files


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_folder_is_walked_in_order_without_hidden_files(folder: Path) -> None:
    write(folder, "b.txt", "a.txt", "deep/er/c.txt", ".git/config", ".hidden")
    found = select_files([folder])
    assert [source.path.name for source in found.sources] == ["a.txt", "b.txt", "c.txt"]
    assert [source.size for source in found.sources] == [5, 5, 13]
    assert (found.missing, found.skipped) == ([], 2)


def test_globs(folder: Path) -> None:
    write(folder, "a.txt", "b.md", "deep/c.txt")
    assert [s.path.name for s in select_files([f"{folder}/*.txt"]).sources] == ["a.txt"]
    assert [s.path.name for s in select_files([f"{folder}/**/*.txt"]).sources] == ["a.txt", "c.txt"]
    assert len(select_files([f"{folder}/**"]).sources) == 3
    assert [bad.code for _, bad in select_files([f"{folder}/*.pdf"]).missing] == ["not_found"]


def test_file_name_with_glob_characters_is_a_file(folder: Path) -> None:
    write(folder, "a[1].txt")
    assert [s.path.name for s in select_files([folder / "a[1].txt"]).sources] == ["a[1].txt"]


def test_file_given_twice_is_read_once(folder: Path) -> None:
    write(folder, "a.txt")
    (folder / "link.txt").symlink_to(folder / "a.txt")
    found = select_files([folder, folder / "a.txt"])
    assert len(found.sources) == 1
    assert found.skipped == 2


def test_circular_links_terminate(folder: Path) -> None:
    write(folder, "deep/a.txt")
    (folder / "deep" / "again").symlink_to(folder)
    assert [source.path.name for source in select_files([folder]).sources] == ["a.txt"]


def test_missing_paths_are_reported(folder: Path) -> None:
    found = select_files([folder / "no.txt", "", folder])
    assert [(name, bad.code) for name, bad in found.missing] == [
        (str(folder / "no.txt"), "not_found"),
        ("", "not_found"),
    ]
    assert all(source.path.is_relative_to(folder) for source in found.sources)


def test_key_makes_ids_independent_of_location(tmp_path: Path) -> None:
    for place in ("one", "two"):
        write(tmp_path / place / "papers", "a.txt", "deep/b.txt")
    ids = [
        [
            (source.uri, source.document_id)
            for source in select_files([tmp_path / place / "papers"], key="papers").sources
        ]
        for place in ("one", "two")
    ]
    assert ids[0] == ids[1]
    assert [uri for uri, _ in ids[0]] == ["papers/a.txt", "papers/deep/b.txt"]
    assert [s.uri for s in select_files([tmp_path / "one/papers/a.txt"], key="the-paper").sources] == ["the-paper"]
    several = select_files([tmp_path / "one/papers/a.txt", tmp_path / "one/papers/deep"], key="k/")
    assert [source.uri for source in several.sources] == ["k/a.txt", "k/deep/b.txt"]
    with pytest.raises(ValueError, match="would both be identified"):
        select_files([tmp_path / "one/papers", tmp_path / "two/papers"], key="k")


def test_unusual_file_names(folder: Path) -> None:
    for name in (b"new\nline.txt", b"not utf-8 \xff.txt", "caf\u00e9 \u2603.txt".encode()):
        with open(os.fsencode(folder) + b"/" + name, "w") as file:
            file.write("text")
    found = select_files([folder])
    assert len({source.document_id for source in found.sources}) == 3
    assert all(source.uri.isascii() for source in found.sources)


@pytest.mark.skipif(os.geteuid() != 0, reason="requires root to change the user")
def test_folder_without_permission_is_reported(folder: Path) -> None:
    write(folder, "deep/a.txt")
    (folder / "deep").chmod(0)
    temporary = Path(tempfile.gettempdir()).resolve()
    for path in (folder, *folder.parents):
        if temporary in path.parents:  # pytest's own folders, which other users may not enter
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        found = select_files([folder])
    finally:
        os.seteuid(0)
    assert [bad.code for _, bad in found.missing] == ["unreadable"]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes names in UTF-8 only")
def test_file_names_that_are_not_utf8_are_encoded(folder: Path) -> None:
    path = os.fsencode(folder)
    for name in (b"\xfc.txt", b"\xfd.txt"):
        Path(os.fsdecode(path + b"/" + name)).write_text("text")
    assert [source.uri for source in select_files([folder], key="k").sources] == ["k/%FC.txt", "k/%FD.txt"]
    [(name, bad)] = select_files([os.fsdecode(path + b"/\xfe")]).missing
    assert name.encode().endswith(b"/%FE")
    assert bad.message.encode().endswith(b"/%FE does not exist")
