"""What `milepost doctor` shows of a PostgreSQL store: above all, what hinders the removal of dead rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import psycopg
import pytest

from milepost.stores.postgres import PostgresStore, maintenance
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")
OPEN = "SELECT pg_sleep(1.1)"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Yield a server with no other transactions than those of a test."""
    with PostgresServer(max_prepared_transactions=1) as server:
        yield server


def details(url: str) -> Mapping[str, str]:
    """Return the details of the store at a URL."""
    store = PostgresStore(url)
    found = run_sync(store.check_health()).details
    run_sync(store.close())
    return found


def seconds(shown: str) -> int:
    """Return the seconds of a duration like "3 s"."""
    return int(shown.removesuffix(" s"))


def test_open_transaction_is_shown_and_reported(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = details(server.url())
    assert (found["oldest_transaction"], found["last_autovacuum"]) == ("none", "never")
    assert int(found["dead_rows"]) >= 0
    monkeypatch.setattr(maintenance, "LONG_TRANSACTION", 0)
    store = PostgresStore(server.url())
    with psycopg.connect(server.url()) as other:
        other.execute(OPEN)
        report = run_sync(store.check_health())
    assert seconds(report.details["oldest_transaction"]) >= 1
    assert [warning for warning in report.warnings if warning.startswith("a transaction is open for ")]
    run_sync(store.close())


def test_prepared_transaction_is_shown(server: PostgresServer) -> None:
    """Regression: it has no session, and keeps dead rows all the same."""
    with psycopg.connect(server.url(), autocommit=True) as other:
        other.execute("BEGIN")
        other.execute(OPEN)
        other.execute("PREPARE TRANSACTION 'forgotten'")
        try:
            assert seconds(details(server.url())["oldest_transaction"]) >= 0
        finally:
            other.execute("ROLLBACK PREPARED 'forgotten'")
    assert details(server.url())["oldest_transaction"] == "none"


def test_transaction_of_another_database_is_not_shown(server: PostgresServer) -> None:
    """Regression: the report said that dead rows cannot be removed while it lasts, which is so in its own database only."""
    with psycopg.connect(server.database("elsewhere")) as other:
        other.execute(OPEN)
        assert details(server.url())["oldest_transaction"] == "none"


def test_role_that_sees_only_its_own_transactions_gets_the_remedy(server: PostgresServer) -> None:
    """Regression: a role with the documented rights read that no transaction is open."""
    details(server.url())
    server.execute('CREATE ROLE "app-1" LOGIN')
    server.execute('GRANT USAGE ON SCHEMA milepost TO "app-1"')
    server.execute('GRANT SELECT ON ALL TABLES IN SCHEMA milepost TO "app-1"')
    server.execute('GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA milepost TO "app-1"')
    url = server.url().replace("postgres@", "app-1@")
    with psycopg.connect(server.url()) as other:
        other.execute(OPEN)
        remedy = 'GRANT pg_read_all_stats TO "app-1"'
        assert details(url)["oldest_transaction"] == f"none of this role; {remedy} shows those of all roles"
        server.execute(remedy)
        assert seconds(details(url)["oldest_transaction"]) >= 1
