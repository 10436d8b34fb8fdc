"""Every bad file, read in this process and by the loader child."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.documents.errors import CODES, BadDocumentError
from milepost.documents.loader_process import LoaderProcess, LoadLimits
from milepost.documents.loaders import load
from tests.documents.bad_files import BAD, MAX_BYTES


@pytest.fixture(scope="module")
def strict_loader() -> Iterator[LoaderProcess]:
    with LoaderProcess(LoadLimits(seconds=30, max_bytes=MAX_BYTES)) as process:
        yield process


@pytest.mark.parametrize("row", BAD)
def test_bad_file_gets_its_error_code(row: str, tmp_path: Path, strict_loader: LoaderProcess) -> None:
    name, write, code = BAD[row]
    path = write(tmp_path / name)
    with pytest.raises(BadDocumentError) as here:
        list(load(path, max_bytes=MAX_BYTES))
    with pytest.raises(BadDocumentError) as there:
        list(strict_loader.load(path))
    assert (here.value.code, there.value.code) == (code, code)
    assert str(here.value).startswith(f"{code}: ")
    assert path.name in here.value.message
    assert strict_loader.starts == 1


def test_bad_files_cover_every_error_code() -> None:
    by_process = {"load_crashed", "load_failed", "load_timeout", "out_of_memory"}
    elsewhere = {"text_too_large", "embedding_refused", "chunk_timeout"}  # shown by other modules
    assert {code for _, _, code in BAD.values()} | {"unreadable"} | by_process | elsewhere == set(CODES)


def test_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("text")
    path.chmod(0)
    me = os.geteuid()
    if me == 0:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(BadDocumentError) as caught:
            list(load(path))
    finally:
        os.seteuid(me)
    assert caught.value.code == "unreadable"


def test_larger_limit_accepts_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(b"text\n" * 1_000_000)
    assert sum(len(piece.text) for piece in load(path, max_bytes=2 * MAX_BYTES)) == 5_000_000
