"""Named sections of SQL and Lua files: how they are read, and the errors of files that are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from milepost.stores.named_sections import section
from milepost.stores.redis import scripts
from milepost.stores.sqlite.database_file import STATEMENTS, Statements


def write(folder: Path, **files: str) -> Path:
    """Write .sql files by name, and return their folder."""
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text)
    return folder


def test_section_ends_at_next_name(tmp_path: Path) -> None:
    kv = "-- Values.\n\n-- name: get\n-- Read one. key\nSELECT 1\n  FROM kv\n\n-- name: put\nINSERT 1\n"
    write(tmp_path, kv=kv, jobs="-- name: job\nSELECT 2")
    assert section(tmp_path, "get") == "-- Read one. key\nSELECT 1\n  FROM kv\n"
    assert section(tmp_path, "put") == "INSERT 1\n"
    assert section(tmp_path, "job") == "SELECT 2\n"


def test_inserted_section_replaces_its_line(tmp_path: Path) -> None:
    kv = "-- name: get\nSELECT 1\n    --@alive\n  LIMIT 1\n\n-- name: alive\n-- Part of reads.\n    WHERE until > 1\n"
    write(tmp_path, kv=kv)
    assert section(tmp_path, "get") == "SELECT 1\n-- Part of reads.\n    WHERE until > 1\n  LIMIT 1\n"


def test_missing_insertion_is_refused(tmp_path: Path) -> None:
    write(tmp_path, kv="-- name: get\nSELECT 1\n--@alive\n")
    with pytest.raises(LookupError, match="no section 'alive'"):
        section(tmp_path, "get")


def test_other_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no name")
    (tmp_path / "kv.lua").write_text("-- name: get\nreturn 1\n")
    assert section(tmp_path, "get") == "return 1\n"


def test_missing_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, kv="-- name: get\nSELECT 1\n")
    with pytest.raises(LookupError, match=r"no section 'gte' in .*; begin it with the line '-- name: gte'"):
        section(tmp_path, "gte")


@pytest.mark.parametrize("other", ["kv", "more"])
def test_doubled_name_is_refused(tmp_path: Path, other: str) -> None:
    first = "-- name: get\nSELECT 1\n"
    write(tmp_path, **({"kv": first + first} if other == "kv" else {"kv": first, "more": first}))
    with pytest.raises(ValueError, match=rf"{other}\.sql: the name 'get' is also in kv\.sql; rename one of them"):
        section(tmp_path, "get")


@pytest.mark.parametrize(
    "line",
    [
        "--name: put",
        "-- Name: put",
        "-- name : put",
        "-- name: Put it",
        "-- name:",
        "  -- name: put",
        "COMMIT -- name: put",
    ],
)
def test_misspelt_name_line_is_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path, kv=f"-- name: get\nSELECT 1\n{line}\nINSERT 1\n")
    with pytest.raises(ValueError, match=r"kv\.sql: '.*' is not a valid name line"):
        section(tmp_path, "get")


def test_text_before_first_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path, kv="SELECT 1\n-- name: get\nSELECT 1\n")
    with pytest.raises(ValueError, match=r"kv\.sql: text before the first name"):
        section(tmp_path, "get")


def test_empty_section_is_refused(tmp_path: Path) -> None:
    write(tmp_path, kv="-- name: get\n-- Read one.\n\n-- name: put\nINSERT 1\n")
    with pytest.raises(ValueError, match=r"kv\.sql: the section 'get' is empty"):
        section(tmp_path, "put")


def test_statement_has_no_comment_and_its_namespace() -> None:
    assert Statements("milepost")["record_delete"] == 'DELETE FROM "jobs" WHERE n = ?'
    assert Statements("Team")["record_delete"] == 'DELETE FROM "^Team:jobs" WHERE n = ?'


def test_script_has_its_preludes() -> None:
    source = scripts.script("renew").source.decode()
    assert source.startswith("#!lua flags=allow-oom\n")
    assert source.index("local root = KEYS[1]") < source.index("local function renew(") < source.index("renew(2)")


@pytest.mark.parametrize("folder", [STATEMENTS, scripts.FOLDER], ids=["sqlite", "redis"])
def test_each_section_is_used(folder: Path) -> None:
    code = "".join(path.read_text() for path in folder.parent.glob("*.py"))
    used = set(re.findall(r'"(\w+)"', code)) | {"sweep_deadline", "sweep_stale"}  # read as f"sweep_{kind}"
    sections = "".join(path.read_text() for path in folder.iterdir())
    used |= set(re.findall(r"(?m)^ *--@(\w+)$", sections))
    names = re.findall(r"(?m)^-- name: (\w+)$", sections)
    assert len(names) > 20
    assert [name for name in names if name not in used] == []
