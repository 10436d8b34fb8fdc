"""Draw tickets of a declared type in steps: a number that was drawn stays, though a second call would draw another."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from milepost import Run
from tests.truth.work import slow


@dataclass
class Ticket:
    """A ticket with a number that no second call draws again."""

    number: int
    at: datetime


def handler(run: Run, folder: str) -> Any:
    drawn = [run.step(f"draw:{number}", draw) for number in range(7)]
    again = [run.step(f"check:{number}", check, ticket) for number, ticket in enumerate(drawn)]
    return [again, len({ticket.number for ticket in drawn})]


def draw() -> Ticket:
    return Ticket(slow(random.getrandbits(60)), datetime.now(UTC))


def check(ticket: Ticket) -> bool:
    return slow(ticket.at.tzinfo is not None)
