"""Serialisation and validation: JSON, single-line texts, ids, labels, times, durations."""

from __future__ import annotations

import json
import unicodedata
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.core import serialization
from milepost.core.errors import InvalidInputError
from milepost.core.serialization import (
    from_json,
    from_micros,
    labels_dict,
    labels_text,
    printable,
    safe_str,
    seconds,
    single_line,
    to_json,
    to_micros,
    truncate,
    validate_job_id,
    validate_job_type,
    validate_key,
)


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    where: Path


PLAIN: list[tuple[Any, Any]] = [
    ({}, {}),
    (0, 0),
    ("", ""),
    (False, False),
    ((1, (2,)), [1, [2]]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset("ba"), ["a", "b"]),
    (date(2025, 1, 2), "2025-01-02"),
    (datetime(2025, 1, 2, tzinfo=UTC), "2025-01-02T00:00:00+00:00"),
    (time(1, 2), "01:02:00"),
    (PurePosixPath("/a/b"), "/a/b"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Decimal("1.10"), "1.10"),
    (Colour.RED, "red"),
    (Point(1, Path("x")), {"x": 1, "where": "x"}),
    (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (MappingProxyType({"a": 1}), {"a": 1}),
    ({1: "int", None: "none", False: "bool"}, {"1": "int", "null": "none", "false": "bool"}),
    ("漢字 🙂", "漢字 🙂"),
    (2**70, 2**70),
]

REFUSED: list[tuple[Any, str, str]] = [
    (object(), "f", "object is not JSON-serialisable; convert"),
    (10**5000, "f", "is not JSON-serialisable: Exceeds the limit"),
    ({"a": {"b": [1, object()]}}, "f.a.b[1]", "is not JSON-serialisable"),
    ({"a": float("nan")}, "f.a", "use None"),
    ([float("inf")], "f[0]", "use None"),
    ({"pages": ["\ud800"]}, "f.pages[0]", "surrogate"),
    ({"\ud800": 1}, "f (key)", "surrogate"),
    ({(1, 2): 1}, "f", "is of type tuple; use a str"),
    ({"a": b"bytes"}, "f.a", "bytes is not JSON-serialisable"),
    ({"a": Point}, "f.a", "is not JSON-serialisable"),
    (Point(1, object()), "f", "is not JSON-serialisable"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=lambda value: type(value).__name__)
def test_to_json_converts_common_types(value: Any, plain: Any) -> None:
    text = to_json(value, "f")
    assert json.loads(text) == plain
    assert "\n" not in text


@pytest.mark.parametrize(
    ("value", "field", "words"), REFUSED, ids=lambda value: str(value)[:20] if isinstance(value, str) else "value"
)
def test_to_json_error_names_path_and_remedy(value: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        to_json(value, "f")
    assert caught.value.field.startswith(field)
    assert words in caught.value.problem
    assert isinstance(caught.value, ValueError)


def test_to_json_accepts_numpy_scalars_but_no_arrays() -> None:
    numpy = pytest.importorskip("numpy")
    value = {"f": numpy.float32(0.5), "i": numpy.int64(3), "b": numpy.bool_(True), "z": numpy.array(7)}
    assert json.loads(to_json(value, "f")) == {"f": 0.5, "i": 3, "b": True, "z": 7}
    with pytest.raises(InvalidInputError, match="ndarray is not JSON-serialisable"):
        to_json({"a": numpy.array([1, 2])}, "f")
    with pytest.raises(InvalidInputError, match=r"f\.a"):
        to_json({"a": numpy.float64("nan")}, "f")


@pytest.mark.parametrize(
    ("key", "name"), [(1, "1"), (-2, "-2"), (1.5, "1.5"), (1e-7, "1e-07"), (True, "true"), (None, "null")]
)
def test_to_json_refuses_keys_that_are_equal_in_json(key: Any, name: str) -> None:
    """Regression: one of the two values was lost."""
    assert to_json({key: 1, "other": 2}, "metadata") == f'{{"{name}":1,"other":2}}'
    both: Any = {key: 1, name: 2}
    for value, path in (
        (both, "metadata"),
        ({"a": [0, (both,)]}, "metadata.a[1][0]"),
        (MappingProxyType(both), "metadata"),
        ([Point(both, 2)], "metadata[0].x"),
    ):
        with pytest.raises(InvalidInputError) as refused:
            to_json(value, "metadata")
        assert str(refused.value) == f"{path}: two keys are {name!r} in JSON; use different ones"


def test_to_json_refuses_cyclic_value() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInputError):
        to_json(loop, "f")
    ring: dict[str, Any] = {}
    ring["a"] = {"b": ring}
    with pytest.raises(InvalidInputError):
        to_json(ring, "f")
    loop.append({1: loop, "a": loop})
    with pytest.raises(InvalidInputError):
        to_json(MappingProxyType({"a": loop}), "f")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_to_json_allows_nesting_of_64() -> None:
    to_json(nested(64), "f")
    with pytest.raises(InvalidInputError, match="deeper than 64"):
        to_json(nested(65), "f")
    with pytest.raises(InvalidInputError):
        to_json(nested(100_000), "f")
    to_json([[1]] * 500, "f")
    to_json("[" * 500, "f")


def test_to_json_limit_counts_bytes() -> None:
    to_json("x" * 62, "f", 64)
    with pytest.raises(InvalidInputError, match="66 bytes of JSON, the limit is 64; store the data elsewhere"):
        to_json("x" * 64, "f", 64)
    to_json("é" * 31, "f", 64)
    with pytest.raises(InvalidInputError):
        to_json("é" * 32, "f", 64)
    assert (serialization.INPUT_BYTES, serialization.RESULT_BYTES, serialization.CHECKPOINT_BYTES) == (
        65536,
        1 << 20,
        1 << 18,
    )


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "{", "", "nul"])
def test_from_json_refuses_invalid_json(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _encodes(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(json_values)
def test_json_round_trips_or_names_field(value: Any) -> None:
    if not _encodes(value):
        with pytest.raises(InvalidInputError, match="surrogate"):
            to_json(value, "f")
        return
    text = to_json(value, "f")
    assert from_json(text) == value
    assert "\n" not in text
    text.encode()


class Loud:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_single_line_accepts_any_object() -> None:
    assert single_line("two\nlines\r\n\ttab\x00nul\u2028x") == "two lines   tab nul x"
    assert single_line("\ud800x") == "\ufffdx"
    assert single_line("a\x9b31m\x85b") == "a 31m b"
    assert single_line("naïve 漢字 🙂") == "naïve 漢字 🙂"
    assert single_line(Loud()) == "<Loud whose str() raised RuntimeError>"
    assert single_line(ValueError("x")) == "x"
    assert single_line(None) == "None"
    assert safe_str(3) == "3"
    assert printable("a\nb\x00\ud800") == "a\nb\ufffd?"


@given(
    st.text(st.characters(), max_size=300) | st.text("\ud800\udfff\n\r\x00\x85\x9b\u2029é🙂", max_size=300),
    st.integers(8, 200),
)
def test_single_line_fits_byte_limit(text: str, limit: int) -> None:
    shown = single_line(text, limit)
    assert len(shown.encode()) <= limit
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(c) == "Cc" for c in shown)
    printable(text, limit).encode()


def test_truncate_marks_cut_and_keeps_characters_whole() -> None:
    assert truncate("x" * 10, 10) == "x" * 10
    assert truncate("x" * 11, 10) == "x" * 7 + "..."
    for limit in range(4, 20):
        shown = truncate("é🙂" * 10, limit)
        assert shown.endswith("...")
        assert len(shown.encode()) <= limit
        shown.encode().decode()


@pytest.mark.parametrize("name", ["a", "A.b_c:d-e", "0" * 128, "..", "-"])
def test_validate_job_id_accepts_valid_ids(name: str) -> None:
    assert validate_job_id(name) == name
    assert validate_job_type(name) == name


@pytest.mark.parametrize(
    "name", ["", "0" * 129, "a b", "a\n", "a/../b", "a{b}", "é", "🙂", "a\x00", "a*", "\r\n", None, 3, b"a", True]
)
def test_validate_job_id_refuses_invalid_ids(name: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        validate_job_id(name)
    assert caught.value.field == "job_id"
    if name != "a/../b":
        with pytest.raises(InvalidInputError, match="job_type"):
            validate_job_type(name)


def test_validate_key() -> None:
    assert validate_key("nightly run é") == "nightly run é"
    for bad in ("", "a\nb", "\ud800", "x" * 513, "é" * 257, None, 3, "\x1f", "a\x9bb"):
        with pytest.raises(InvalidInputError, match="unique_key"):
            validate_key(bad)


def test_labels_text_round_trips() -> None:
    assert labels_text(None) == labels_text({}) == ""
    text = labels_text({"b": "2=3", "a": "é x", "c": ""})
    assert text == "a=é x\x1fb=2=3\x1fc="
    assert labels_dict(text) == {"a": "é x", "b": "2=3", "c": ""}
    assert labels_dict("") == {}
    labels_text({str(n): "v" for n in range(16)})
    for bad in (
        {str(n): "v" for n in range(17)}, {"a b": "v"}, {"": "v"}, {"a": 3}, {"a": None}, {3: "v"}, {"a=b": "v"},
        {"a": "x" * 129}, {"a": "x\ny"}, {"a": "\x1f"}, {"k" * 129: "v"}, [("a", "b")], "a=b",
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match="labels"):
            labels_text(bad)  # type: ignore[arg-type]


def test_micros_round_trip() -> None:
    when = datetime(2025, 6, 15, 15, 6, 40, 123456, tzinfo=UTC)
    assert from_micros(to_micros(when, "f")) == when
    east = when.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert to_micros(east, "f") == to_micros(when, "f")
    assert from_micros(0).isoformat() == "1970-01-01T00:00:00+00:00"
    assert to_micros(datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), "f") == -1_000_000
    with pytest.raises(InvalidInputError, match="not_before: datetime must be timezone-aware"):
        to_micros(datetime(2025, 1, 1), "not_before")
    with pytest.raises(InvalidInputError):
        to_micros("2025-01-01", "f")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        to_micros(date(2025, 1, 1), "f")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "number"),
    [(90, 90.0), (0.5, 0.5), (0, 0.0), ("90", 90.0), ("1.5", 1.5), ("2h", 7200.0), ("1h30m", 5400.0), ("250ms", 0.25),
     ("7d", 604800.0), ("1w", 604800.0), (" 5 S ".replace(" S", "S"), 5.0), (timedelta(minutes=2), 120.0), ("10us", 1e-5)],
)  # fmt: skip
def test_seconds_parses_durations(value: Any, number: float) -> None:
    assert seconds(value, "f") == pytest.approx(number)


@pytest.mark.parametrize(
    "value", ["", "soon", "h", "1h2", "2 hours", "-1", -1, float("nan"), float("inf"), 10**400, "nan", "inf", True, None, [], "1e400",
              timedelta(seconds=-1), 1e12, pytest.param("1" * 1_000_000, id="digits"), pytest.param("1s" * 500_000 + "x", id="parts")],
)  # fmt: skip
def test_seconds_refuses_other_values(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        seconds(value, "timeout")
