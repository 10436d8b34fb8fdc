"""The vector index of PostgreSQL: HNSW of pgvector, one for each dimension.

The column of vectors has no dimension, because models differ, so the index is on an expression that has one. Its vectors
have 16 bits a component, which find the candidates; these are ranked by the stored ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from milepost.documents.store.database import Transaction
from milepost.documents.store.records import Generation

MAX_APPROXIMATE_HITS: Final = 400
_MAX_DIMENSION: Final = 4000
"""The limit of pgvector for an index of 16-bit components."""
_BUILDER: Final = 0x6D696C65_76656374  # "milevect"
_CANDIDATES_PER_HIT: Final = 2
_MIN_CANDIDATES: Final = 100
_TICK_SECONDS: Final = 0.1
_BUILD_MEMORY: Final = "512MB"


def is_wanted(transaction: Transaction, generation: Generation, least: int) -> bool:
    """Return whether an index is worth its cost, possible, and lacking.

    Before pgvector 0.8 a search by index would end before it has enough vectors of its generation.
    """
    row = transaction.one(
        "SELECT string_to_array(extversion, '.')::int[] >= '{0,8}' FROM pg_extension WHERE extname = 'vector'"
    )
    if (
        row is None
        or not row[0]
        or generation.dimension > _MAX_DIMENSION
        or has_index(transaction, generation.dimension)
    ):
        return False
    count = transaction.one("SELECT count(*) FROM index_entries WHERE generation = ?", (generation.number,))
    return count is not None and count[0] >= least


def has_index(transaction: Transaction, dimension: int) -> bool:
    """Return whether the index for a dimension can be used."""
    return (
        transaction.one(
            "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(?) AND indisvalid", (_index_name(dimension),)
        )
        is not None
    )


def create_index(connection: Any, dimension: int, tick: Callable[[], object]) -> bool:
    """Create the index for a dimension, while others read and write. Return False if another process is creating it.

    An index that a killed process left unfinished is created anew. `tick` may raise to give up.
    """
    name = _index_name(dimension)
    if not connection.execute("SELECT pg_try_advisory_lock(%s)", (_BUILDER,)).fetchone()[0]:
        return False
    try:
        connection.execute(f"DROP INDEX IF EXISTS {name}")
        connection.execute(f"SET maintenance_work_mem = '{_BUILD_MEMORY}'")
        _run_cancellable(
            connection,
            f"""CREATE INDEX CONCURRENTLY {name} ON vectors
            USING hnsw ((vector::halfvec({dimension})) halfvec_cosine_ops) WHERE vector_dims(vector) = {dimension}""",
            tick,
        )
        connection.execute("RESET maintenance_work_mem")
        connection.execute("ANALYZE vectors, chunks, index_entries")
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_BUILDER,))
    return True


def _run_cancellable(connection: Any, statement: str, tick: Callable[[], object]) -> None:
    """Run a long statement in a thread, and cancel it if `tick` raises."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            connection.execute(statement)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=work, name="milepost-vector-index", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            tick()
            thread.join(_TICK_SECONDS)
    except BaseException:
        connection.cancel()
        thread.join()
        raise
    if failures:
        raise failures[0]


def nearest_by_index(
    transaction: Transaction, generation: int, dimension: int, vector: Any, k: int
) -> list[tuple[float, int]]:
    """Return (cosine, entry number) of about the `k` nearest entries.

    The index also has vectors of other generations and of entities. It is read on until there are enough.
    """
    candidates = max(_CANDIDATES_PER_HIT * k, _MIN_CANDIDATES)
    transaction.run(f"SET LOCAL hnsw.ef_search = {candidates}")
    transaction.run("SET LOCAL hnsw.iterative_scan = relaxed_order")
    rows = transaction.all(
        f"""SELECT 1 - (vector <=> ?) AS score, number FROM (
            SELECT v.vector, e.number FROM vectors v
            JOIN chunks c ON c.vector_key = v.vector_key
            JOIN index_entries e ON e.version_id = c.version_id AND e.ordinal = c.ordinal
            WHERE e.generation = ? AND vector_dims(v.vector) = {dimension}
            ORDER BY v.vector::halfvec({dimension}) <=> ?::halfvec({dimension}) LIMIT {candidates}
        ) candidates ORDER BY score DESC, number LIMIT ?""",
        (vector, generation, vector, k),
    )
    return [(float(score), number) for score, number in rows]


def _index_name(dimension: int) -> str:
    return f"vectors_{int(dimension)}"
