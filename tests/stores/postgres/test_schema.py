"""The schema of a PostgreSQL store: who creates it, what the application's role needs, and schemas of other releases."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from milepost.core import transitions as plans
from milepost.core.errors import InvalidInputError, LayoutMismatchError, StoreUnavailableError
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.postgres import PostgresStore
from milepost.stores.protocol import Write
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service("postgresql")

RIGHTS = """
GRANT USAGE ON SCHEMA "{0}" TO {1};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{0}" TO {1};
GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA "{0}" TO {1};
"""


@pytest.fixture
def admin(postgres_server: PostgresServer) -> Iterator[psycopg.Connection]:
    """Yield a connection of a role that may do anything."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def app_url(postgres_server: PostgresServer, admin: psycopg.Connection) -> Iterator[str]:
    """Return the URL of a role without any rights, which ends with the test."""
    admin.execute("CREATE ROLE plain LOGIN")
    yield postgres_server.url().replace("postgres@", "plain@")
    admin.execute("DROP OWNED BY plain")
    admin.execute("DROP ROLE plain")


def use(store: PostgresStore) -> None:
    """Create and delete a job, sweep, purge, and use a key."""

    async def work() -> None:
        fields = {"type": "t", "run_by": "worker", "ready": "q", "slot": "q", "max_attempts": "1", "budget": "1"}
        for plan in (plans.plan_create(fields, new_operation_id()), plans.plan_delete(new_operation_id())):
            assert (await store.apply([Write("a", plan)])).outcomes[0].accepted
        await store.sweep(lease=30, interval=0)
        await purge_older(store, ttl=0)
        assert await store.kv_put("k", "v")

    run_sync(work())
    run_sync(store.close())


def test_role_that_may_not_create_gets_the_remedy(app_url: str, namespace: str) -> None:
    store = PostgresStore(app_url, namespace=namespace)
    with pytest.raises(
        StoreUnavailableError, match=f"the schema '{namespace}' does not exist.*milepost migrate --sql"
    ) as e:
        run_sync(store.now())
    assert not e.value.temporary


def test_role_with_the_documented_rights_does_everything(
    app_url: str, admin: psycopg.Connection, namespace: str
) -> None:
    store = PostgresStore(app_url, namespace=namespace)
    admin.execute(store.schema_sql())
    with pytest.raises(StoreUnavailableError, match="permission denied"):
        run_sync(store.now())
    admin.execute(RIGHTS.format(namespace, "plain"))
    use(store)


def test_printed_schema_changes_nothing_of_an_existing_one(
    postgres_url: str, admin: psycopg.Connection, namespace: str
) -> None:
    store = PostgresStore(postgres_url, namespace=namespace)
    version = run_sync(store.kv_put("k", "v"))
    admin.execute(store.schema_sql())
    item = run_sync(store.kv_get("k"))
    assert item is not None
    assert item.version == version
    run_sync(store.close())


@pytest.mark.parametrize(("layout", "remedy"), [(0, "run: milepost migrate"), (99, "upgrade milepost")])
def test_schema_of_another_release_is_refused(
    postgres_url: str, admin: psycopg.Connection, namespace: str, layout: int, remedy: str
) -> None:
    admin.execute(PostgresStore(postgres_url, namespace=namespace).schema_sql())
    admin.execute(f"UPDATE \"{namespace}\".state SET value = {layout} WHERE name = 'layout'")
    with pytest.raises(LayoutMismatchError, match=f"layout {layout}, this release reads 1; {remedy}"):
        run_sync(PostgresStore(postgres_url, namespace=namespace).now())


def test_missing_database_fails_at_once(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="does not exist") as e:
        run_sync(PostgresStore(f"{postgres_url}_missing").now())
    assert not e.value.temporary


@pytest.mark.parametrize("name", ["", 'a"b', "pg_x", "x" * 64])
def test_names_that_cannot_be_schemas_are_refused(postgres_url: str, name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^namespace: "):
        PostgresStore(postgres_url, namespace=name)


def test_url_is_shown_without_user_and_password() -> None:
    store = open_store("postgres://user:secret@db.example:5433/app?sslmode=require", namespace="n")
    assert store.url == "postgresql://db.example:5433/app#n"
    with pytest.raises(InvalidInputError, match="is no PostgreSQL URL"):
        open_store("postgresql://db.example:port/app?unknown=1")


def test_health_shows_what_hinders_vacuum(postgres_url: str, namespace: str) -> None:
    store = PostgresStore(postgres_url, namespace=namespace)
    assert run_sync(store.check_health()).details["last_autovacuum"] == "never"
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_sleep(1.1)")
        found = run_sync(store.check_health()).details
    assert int(found["oldest_transaction"].removesuffix(" s")) >= 1
    assert int(found["dead_rows"]) >= 0
    run_sync(store.close())
