"""How many rows a statement of the store on PostgreSQL reads, as its plan tells."""

from __future__ import annotations

from typing import Any

import psycopg

from milepost.stores.postgres import PostgresStore


def rows_read(
    store: PostgresStore, url: str, name: str, settings: tuple[str, ...] = ("patience",), **values: Any
) -> int:
    """Run a statement and undo it. Return the most rows that a step of its plan read, all its loops together, with those that
    its filter dropped.

    `settings` are the statements that precede it in its transaction.
    """
    sql, request = store._namespace.call(name, values)
    with psycopg.connect(url) as connection:
        for setting in settings:
            connection.execute(*store._namespace.call(setting, {"patience": "1000"}))
        ((plan,),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", request).fetchall()
        connection.rollback()
    steps = [plan[0]["Plan"]]
    for step in steps:
        steps += step.get("Plans", [])
    return max(
        round((step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]) for step in steps
    )
