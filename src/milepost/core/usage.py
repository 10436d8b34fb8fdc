"""What jobs spend: amounts by name, such as tokens and usd, kept as whole millionths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import finite_number, from_json, safe_str, to_json

MILLION = 1_000_000
MAX_AMOUNT = 1e12
MAX_NAMES = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")


def millionths(amounts: Any, field: str) -> dict[str, int]:
    """Return amounts in whole millionths, by name. Raises InvalidInputError as `exact_millionths`."""
    return {name: round(amount) for name, amount in exact_millionths(amounts, field).items()}


def exact_millionths(amounts: Any, field: str) -> dict[str, float]:
    """Return amounts in millionths, by name. Raises InvalidInputError with the field and the name of a wrong one."""
    if not isinstance(amounts, Mapping) or not amounts or len(amounts) > MAX_NAMES:
        raise InvalidInputError(field, f"{amounts!r:.60} must have 1 to {MAX_NAMES} amounts by name, as {{'usd': 5}}")
    found: dict[str, float] = {}
    for name, amount in amounts.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInputError(field, f"{name!r:.60} is not a name of 1 to 40 letters, digits and underscores")
        number = finite_number(amount)
        if number is None or not 0 <= number <= MAX_AMOUNT:
            shown = f"{amount!r}" if isinstance(amount, str) else safe_str(amount)
            raise InvalidInputError(field, f"{name}: {shown:.40} must be a number from 0 to {MAX_AMOUNT:.0e}")
        found[name] = number * MILLION
    return found


def encode_usage(usage: Mapping[str, int]) -> str:
    """Return the stored form of amounts in millionths."""
    return to_json(dict(usage), "usage")


def decode_millionths(text: str | None) -> dict[str, int]:
    """Return the stored amounts in millionths."""
    return {name: int(amount) for name, amount in from_json(text).items()} if text else {}


def decode_usage(text: str) -> dict[str, float]:
    """Return the stored amounts: whole numbers as int."""
    return shown(decode_millionths(text))


def shown(usage: Mapping[str, int]) -> dict[str, float]:
    """Return amounts in millionths as numbers: whole ones as int."""
    return {name: n // MILLION if n % MILLION == 0 else n / MILLION for name, n in usage.items()}


def amount_text(amount: float) -> str:
    """Return an amount with all of its digits, such as "0.000003" or "1,000,812"."""
    return f"{amount:,.6f}".rstrip("0").rstrip(".")


class Excess(NamedTuple):
    """An amount of a budget that is spent, as text, and its name."""

    text: str
    name: str


def exceeded(usage: Mapping[str, int], budget: Mapping[str, int], *, at_limit: bool = False) -> Excess | None:
    """Return the first amount of a budget that is exceeded, or None. With `at_limit`, one without a rest counts too."""
    for name, limit in budget.items():
        spent = usage.get(name, 0)
        if spent > limit or (at_limit and spent >= limit):
            return Excess(f"{amount_text(spent / MILLION)} of {amount_text(limit / MILLION)} {name} spent", name)
    return None
