"""The hot paths take as many instructions as were recorded, within a tenth: no load of the machine changes their number."""

from __future__ import annotations

import json

import pytest
from benchmarks.records import RESULTS, machine
from benchmarks.surveys.instructions import COLUMNS, count

SAME = ("Python", "Redis", "hiredis")
TRIES = 3
"""What disturbs one count, such as a client of something else that comes to the port, is not there at the next."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.service("valgrind")
@pytest.mark.service("redis-server")
@pytest.mark.parametrize("name", ["progress write", "submit"])
def test_a_hot_path_takes_what_was_recorded(name: str) -> None:
    kept = json.loads(RESULTS.read_text())["instructions"]
    here = machine()
    if any(here[what] != kept["machine"][what] for what in SAME):
        pytest.skip("they were recorded with other versions of Python, Redis or hiredis")
    recorded = {row[0]: [int(figure.replace(",", "")) for figure in row[1:]] for row in kept["rows"]}
    for _ in range(TRIES):
        counted = count(name, 400)
        far = [
            f"{who}: {now:,}, recorded were {before:,}"
            for who, now, before in zip(COLUMNS[1:], counted, recorded[name], strict=True)
            if abs(now - before) > before / 10
        ]
        if not far:
            return
    pytest.fail("; ".join(far))
