"""The commands that administer a store or its job types, on every kind of store.

`migrate` cannot use a server, and says so in one line, with the remedy.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from milepost.stores.sync_bridge import run_sync
from milepost.web import auth
from milepost.web.security.api_keys import ApiKeyStore
from tests.cli.stores_fixture import StoreFixture, covers
from tests.cli.subprocesses import CommandRunner
from tests.postgres_server import PostgresServer


@covers("doctor", "migrate", "purge")
def test_doctor_migrate_and_purge(filled: StoreFixture) -> None:
    done = filled.run("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["layout"] == 1
    assert found["kind"] in ("sqlite", "redis", "valkey", "postgresql")
    assert done.returncode == (1 if found["warnings"] else 0)
    shown = filled.run("doctor").stdout
    assert all(warning in shown for warning in found["warnings"])
    if found["kind"] in ("redis", "valkey"):
        assert re.search(r"used memory +\d[\d.]* [KM]B\n", shown)
        assert re.search(r"maxmemory +no limit\n", shown)
        assert re.search(r"uptime +\d.*s\n", shown), shown
    if found["kind"] == "postgresql":
        assert re.search(r"oldest transaction +(none|\d+ s)\n", shown)
        assert re.search(r"dead rows +\d+\n", shown)
        assert re.search(r"last autovacuum +(never|\d+ s ago)\n", shown)
    if filled.is_server:
        assert "pass the store URL with --url" in filled.error_line("migrate", code=2)
        assert "pass the store URL" in filled.error_line("purge", "--older-than", "0", code=2)
        assert filled.rows("purge") == [{"purged": 0}]
    else:
        assert filled.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]
        assert filled.rows("purge") == [{"purged": 0}]
        assert filled.rows("purge", "--older-than", "0") == [{"purged": 3}]
        assert {job["job_id"] for job in filled.rows("ls")} == {"c-now", "d-next"}


@pytest.mark.service("postgresql")
def test_migrate_creates_a_missing_schema_or_prints_its_sql(
    tmp_path: Path, postgres_server: PostgresServer, namespace: str
) -> None:
    """Regression: the line said that the store, which did not exist, already had the layout."""
    schemas = f"SELECT 1 FROM pg_namespace WHERE nspname = '{namespace}'"
    with CommandRunner(tmp_path, MILEPOST_URL=postgres_server.url(), MILEPOST_NAMESPACE=namespace) as program:
        sql = program.call("migrate", "--sql")
        assert f'CREATE SCHEMA IF NOT EXISTS "{namespace}"' in sql
        assert postgres_server.fetch(schemas) == []
        assert program.call("migrate") == "The store has the layout of this release (1).\n"
        assert postgres_server.fetch(schemas) == [(1,)]
        postgres_server.execute(f'DROP SCHEMA "{namespace}" CASCADE')
        postgres_server.execute(sql)
        assert program.call("migrate") == "The store has the layout of this release (1).\n"


@covers("types", "types pause", "types resume", "types limit")
def test_types_list_pause_resume_limit(working: StoreFixture) -> None:
    assert {known["name"] for known in working.rows("types")} == {"count", "deaf", "broken", "gentle", "leave"}
    assert " n=... [pause=...] [note=...]" in working.call("types")
    assert "paused" in working.call("types", "pause", "count")
    job_id = working.call("submit", "count", "1").strip()
    working.call("watch", job_id, "--timeout", "0.5", code=124)
    if not working.is_server:  # a server forecasts single jobs only
        assert "Type count is paused" in working.call("ls")
    assert working.rows("types", "resume", "count")[0]["paused"] is False
    working.call("watch", job_id, "--timeout", "60", code=0)
    assert working.rows("types", "limit", "count", "2")[0]["limit"] == 2
    for command, paused in (("pause", True), ("resume", False)):
        [known] = working.rows("types", command, "count")
        assert (known["limit"], known["paused"]) == (2, paused)
    assert working.rows("types", "limit", "count", "none")[0]["limit"] is None
    assert "published 'nothing' (published: broken, count, deaf, gentle" in working.error_line(
        "types", "pause", "nothing", code=2
    )


@covers("keys", "keys create", "keys revoke")
def test_keys(where: StoreFixture) -> None:
    if not where.is_server:
        keys_are_made_listed_and_revoked(where)
        return
    assert where.error_line("keys", "create", "ci", code=1).endswith("with the store's URL\n")
    with where.manager() as manager:
        _, where.environment["MILEPOST_KEY"] = run_sync(ApiKeyStore(manager.store).create("admin", ["admin"]))
    with where.served(auth.api_keys()):
        keys_are_made_listed_and_revoked(where)


def keys_are_made_listed_and_revoked(where: StoreFixture) -> None:
    others = len(where.rows("keys"))
    options = ("--scope", "jobs:cancel", "--scope", "jobs:read", "--types", "a, b", "--types", "c", "--expires-in", "30d", "--max-priority", "-5")  # fmt: skip
    key = where.call("keys", "create", "ci", *options).strip()
    assert re.fullmatch(r"mp_[0-9a-f]+_\S+", key)
    [listed] = [one for one in where.rows("keys") if one["name"] == "ci"]
    assert (listed["scopes"], listed["types"]) == (["jobs:cancel", "jobs:read"], ["a", "b", "c"])
    assert listed["max_priority"] == -5
    assert "active" in where.call("keys")
    where.call("keys", "revoke", listed["id"])
    assert [one["revoked_at"] is not None for one in where.rows("keys") if one["name"] == "ci"] == [True]
    assert len(where.rows("keys")) == others + 1
    assert "milepost keys lists all keys" in where.error_line("keys", "revoke", "unknown", code=1)
    assert "--types" in where.error_line("keys", "create", "x", "--types", ",", code=2)


@covers("completion")
def test_completion_suggests_job_ids(filled: StoreFixture) -> None:
    assert "_MILEPOST_COMPLETE=bash_complete" in filled.call("completion", "bash")
    shell = {"_MILEPOST_COMPLETE": "bash_complete", "COMP_WORDS": "milepost show a-", "COMP_CWORD": "2"}
    completed = filled.run(**shell).stdout
    assert {line.partition(",")[2] for line in completed.splitlines()} == {"a-done", "a-bad"}
