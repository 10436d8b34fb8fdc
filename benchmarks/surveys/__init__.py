"""Surveys of milepost alone: growth, concurrency, footprint. One module each.

A survey is a module with `survey(size)`, which gives the rows of a table; `size` is the full number of jobs or less. A survey
with `stores` measures those that are asked for: its function is `survey(size, stores)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field


def figure(value: float) -> str:
    """Return a number with its significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Table:
    """The rows of a survey as text, and notes below them."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Survey:
    """One survey: its title, the page and heading of its table, and its size."""

    name: str
    title: str
    page: str
    heading: str
    size: int
    tiny: int
    stores: tuple[str, ...] = ()
    """The stores that can be chosen; the first is the default."""

    def run(self, *, tiny: bool, stores: Sequence[str] = ()) -> Table:
        """Run the survey, which takes minutes at full size, on those of `stores` that it has, or its default."""
        chosen = [store for store in self.stores if store in stores] or self.stores[:1]
        module = importlib.import_module(f"benchmarks.surveys.{self.name}")
        table: Table = module.survey(self.tiny if tiny else self.size, *([chosen] if chosen else ()))
        return table


SURVEYS = {
    survey.name: survey
    for survey in (
        Survey("footprint", "start-up, imports, sizes, dependencies", "benchmarks.md", "Start-up and weight", 9, 1),
        Survey(
            "instructions",
            "the hot paths in instructions, counted by callgrind",
            "benchmarks.md",
            "Hot paths in instructions",
            1_000,
            500,
        ),
        Survey(
            "scale",
            "the cost of each operation by number of jobs, in Redis and SQLite",
            "scale.md",
            "Cost of each operation by number of jobs",
            1_000_000,
            2_000,
        ),
        Survey(
            "run_overhead",
            "running jobs in one process that report at full speed",
            "scale.md",
            "Many running jobs in one process",
            1_000,
            10,
        ),
        Survey(
            "streams",
            "ten thousand clients of streams, five hundred of the list, one server process",
            "scale.md",
            "Many clients of streams",
            10_000,
            100,
        ),
        Survey(
            "cluster",
            "namespaces over one, two and three Redis nodes",
            "scale.md",
            "Namespaces over the nodes of a Cluster",
            30_000,
            600,
        ),
        Survey(
            "postgres",
            "the PostgreSQL store beside its own statements in a bare psycopg loop",
            "benchmarks.md",
            "PostgreSQL",
            2_000,
            100,
        ),
        Survey(
            "postgres_load",
            "PostgreSQL under a steady load beside long transactions",
            "benchmarks.md",
            "PostgreSQL under load",
            1_800,
            6,
        ),
        Survey(
            "user_waits",
            "waits that users notice: beside a backlog, for a cancel, for many children, for a resume",
            "benchmarks.md",
            "Waits that users notice",
            100_000,
            200,
            ("Redis", "SQLite", "PostgreSQL"),
        ),
        Survey(
            "partition_claims",
            "the cost of a claim beside many partitions with limits",
            "benchmarks.md",
            "Claims beside many partitions",
            10_000,
            100,
            ("Redis", "SQLite", "PostgreSQL", "memory"),
        ),
    )
}
