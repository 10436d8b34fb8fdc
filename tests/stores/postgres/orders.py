"""The rows that handlers of the tests write in transactions of their own."""

from __future__ import annotations

import psycopg


def empty_orders(url: str) -> None:
    """Leave an empty table of orders."""
    with psycopg.connect(url) as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (number int)")
        db.execute("TRUNCATE orders")


def orders(url: str) -> list[int]:
    """Return the committed orders, sorted."""
    with psycopg.connect(url) as db:
        return [number for (number,) in db.execute("SELECT number FROM orders ORDER BY number")]
