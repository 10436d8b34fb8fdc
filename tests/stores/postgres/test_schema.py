"""The schema of a PostgreSQL store: who creates it, what the application's role needs, and schemas of other releases."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from milepost import Jobs, Run, Settings
from milepost.core.errors import InvalidInputError, LayoutMismatchError, StoreUnavailableError
from milepost.stores.factory import open_store
from milepost.stores.postgres import PostgresStore
from milepost.stores.retention import purge_older
from milepost.stores.sync_bridge import run_sync
from tests.docs.page_runner import ROOT, blocks
from tests.postgres_server import PostgresServer
from tests.waiting import PATIENCE

pytestmark = pytest.mark.service("postgresql")

PAGE = (ROOT / "docs" / "how-to" / "postgres.md").read_text()


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


def rights(schema: str, role: str) -> str:
    """Return the rights that the documentation gives to the role of the application, for this schema and role."""
    (sql,) = (code for language, code, _ in blocks(PAGE) if language == "sql")
    return sql.replace("SCHEMA milepost", f'SCHEMA "{schema}"').replace("TO app", f"TO {role}")


def use(url: str, namespace: str) -> None:
    """Submit, run, checkpoint and finish jobs, also in transactions, with most of what is stored beside them; then delete."""
    jobs = Jobs(url, options=Settings(namespace=namespace))
    large = "x" * 70_000

    @jobs.job("bill")
    def bill(run: Run, text: str) -> str:
        run.checkpoint(text)
        run.step("once", lambda: text)
        with psycopg.connect(url) as db:
            run.checkpoint(text, using=db)
        with psycopg.connect(url) as db:
            return run.finish(text, using=db)

    jobs.limit("bill", running=1, per_partition=1, rate="100/s")
    jobs.close_gate("bill", 0.01)
    jobs.add_schedule("nightly", bill, every="1d", params={"text": "x"})
    with jobs.run_workers(), psycopg.connect(url) as db:
        first = jobs.using(db).submit(bill.options(partition="p"), text=large)
        db.commit()
        last = jobs.submit(bill.options(unique_key="k", after=[f"job:{first.job_id}"], labels={"a": "b"}), text="y")
        assert jobs.wait(last, timeout=PATIENCE).result == "y"
    assert jobs.wait(first, timeout=PATIENCE).result == large
    waiting = jobs.submit(bill, text="z")
    jobs.cancel_job(waiting.job_id)
    for job in (last, first, waiting):
        assert jobs.events(job.job_id)
        jobs.delete_job(job.job_id)
    run_sync(jobs.store.sweep(lease=30, interval=0))
    run_sync(purge_older(jobs.store, ttl=0))
    run_sync(jobs.store.rollups(0))
    assert run_sync(jobs.store.check_health()).layout == 1
    jobs.close()


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
    admin.execute(rights(namespace, "plain"))
    run_sync(store.close())
    use(app_url, namespace)


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


def test_missing_table_names_what_creates_it(postgres_url: str, admin: psycopg.Connection, namespace: str) -> None:
    """Regression: the error named `milepost migrate`, which does nothing where the layout is that of this release."""
    store = PostgresStore(postgres_url, namespace=namespace)
    run_sync(store.kv_put("k", "v"))
    admin.execute(f'DROP TABLE "{namespace}".kv')
    with pytest.raises(
        StoreUnavailableError, match="create what is missing with the output of `milepost migrate --sql`"
    ):
        run_sync(store.kv_get("k"))
    admin.execute(store.schema_sql())
    assert run_sync(store.kv_get("k")) is None
    run_sync(store.close())


def test_missing_database_fails_at_once(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailableError, match="does not exist") as e:
        run_sync(PostgresStore(f"{postgres_url}_missing").now())
    assert not e.value.temporary


@pytest.mark.parametrize("name", ["", 'a"b', "pg_x", "x" * 64, "a%b", "a$b", "a'b"])
def test_names_that_cannot_be_schemas_are_refused(postgres_url: str, name: str) -> None:
    """Regression: names with % and $ passed, and each call failed with an error of the driver."""
    with pytest.raises(InvalidInputError, match=r"^namespace: "):
        PostgresStore(postgres_url, namespace=name)


def test_url_is_shown_without_user_and_password() -> None:
    store = open_store("postgres://user:secret@db.example:5433/app?sslmode=require", namespace="n")
    assert store.url == "postgresql://db.example:5433/app#n"
    with pytest.raises(InvalidInputError, match="is no PostgreSQL URL"):
        open_store("postgresql://db.example:port/app?unknown=1")
