"""How many rows a statement of the store on PostgreSQL reads, as its plan tells."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from milepost.stores.postgres import PostgresStore


def rows_read(
    store: PostgresStore, url: str, name: str, settings: tuple[str, ...] = ("patience",), **values: Any
) -> int:
    """Run a statement with the plan that is kept, and undo it.

    Return the most rows that a step of its plan read, all its loops together, with those that its filter dropped.
    `settings` are the statements that precede it in its transaction.
    """
    sql, request = store._namespace.call(name, values)
    order = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    text = re.sub(r"%\((\w+)\)s", lambda match: f"${order.index(match[1]) + 1}", sql)
    places = ", ".join(["%s"] * len(order))
    with psycopg.connect(url) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(f"PREPARE kept AS {text}")
        for setting in settings:
            connection.execute(*store._namespace.call(setting, {"patience": "1000"}))
        cursor.execute(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE kept ({places})", [(request or {})[name] for name in order]
        )
        ((plan,),) = cursor.fetchall()
        connection.rollback()
    assert "JIT" not in plan[0], "to compile a statement of a queue takes longer than to run it"
    steps = [plan[0]["Plan"]]
    for step in steps:
        steps += step.get("Plans", [])
    return max(
        round((step["Actual Rows"] + step.get("Rows Removed by Filter", 0)) * step["Actual Loops"]) for step in steps
    )
