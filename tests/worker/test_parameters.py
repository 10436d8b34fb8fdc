"""Parameters of handlers: supported types, validation of values, and the published schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pytest
from annotated_types import Predicate

from milepost import InvalidInputError, Run, Secret
from milepost.run.param_types import check_schema
from milepost.worker.parameters import parameters_of

if TYPE_CHECKING:
    from collections import OrderedDict


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Part:
    name: str
    weight: float = 1.0
    tags: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    size: int = pydantic.Field(ge=1)
    inner: list[Part] = []


def everything(
    run: Run,
    text: str,
    number: int,
    share: float = 0.5,
    flag: bool = False,
    items: list[int] | None = None,
    table: dict[str, float] | None = None,
    mode: Literal["fast", "slow", 3] = "fast",
    colour: Colour = Colour.RED,
    level: Level = Level.LOW,
    part: Part | None = None,
    when: datetime | None = None,
    path: Path = Path("."),
    token: Secret | None = None,
    anything: dict | None = None,  # type: ignore[type-arg]
    several: list | None = None,  # type: ignore[type-arg]
    noted: Annotated[int, "a note"] = 1,
    either: int | str = 1,
    nothing: None = None,
    model: Model | None = None,
) -> None: ...


PLAIN: dict[str, Any] = {
    "text": "a",
    "number": 3,
    "share": 1,
    "flag": True,
    "items": [1, 2],
    "table": {"a": 1.5},
    "mode": 3,
    "colour": "blue",
    "level": 2,
    "part": {"name": "x", "tags": ["a"]},
    "when": "2026-11-25T10:30:00+00:00",
    "path": "/tmp/x",
    "token": "hush",
    "anything": {"a": [None, {"b": 1}]},
    "several": [1, "a", None],
    "noted": 4,
    "either": "four",
    "nothing": None,
    "model": {"size": 2, "inner": [{"name": "y"}]},
}


def test_plain_values_are_decoded_by_annotation() -> None:
    read = parameters_of(everything).read(PLAIN)
    assert read["share"] == 1.0
    assert isinstance(read["share"], float)
    assert (read["colour"], read["level"], read["mode"]) == (Colour.BLUE, Level.HIGH, 3)
    assert read["part"] == Part("x", 1.0, ["a"])
    assert read["when"] == datetime(2026, 11, 25, 10, 30, tzinfo=UTC)
    assert read["path"] == Path("/tmp/x")
    assert isinstance(read["token"], Secret)
    assert read["either"] == "four"
    assert read["model"].inner[0].name == "y"


def test_typed_values_are_stored_as_plain_values() -> None:
    given = {
        "text": "a",
        "number": 3,
        "colour": Colour.BLUE,
        "level": Level.HIGH,
        "part": Part("x", 1.0, ["a"]),
        "when": datetime(2026, 11, 25, 10, 30, tzinfo=UTC),
        "path": Path("/tmp/x"),
        "token": Secret("hush"),
        "model": Model(size=2, inner=[Part("y")]),
    }
    checked = parameters_of(everything).check(given)
    assert checked["colour"] == "blue"
    assert checked["part"] == {"name": "x", "weight": 1.0, "tags": ["a"]}
    assert checked["when"] == "2026-11-25T10:30:00+00:00"
    assert checked["model"]["size"] == 2
    assert parameters_of(everything).read(checked)["part"] == given["part"]


def test_omitted_parameters_use_function_defaults() -> None:
    assert parameters_of(everything).read({"text": "a", "number": 1}) == {"text": "a", "number": 1}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("text", 3, "3 is not text"),
        ("number", "3", "'3' is not a whole number"),
        ("number", True, "True is not a whole number"),
        ("number", 1.5, "1.5 is not a whole number"),
        ("share", "x", "'x' is not a number"),
        ("flag", 1, "1 is not true or false"),
        ("items", [1, "x"], "'x' is not a whole number"),
        ("table", {"a": "x"}, "'x' is not a number"),
        ("mode", "medium", "'medium' is not one of 'fast', 'slow', 3"),
        ("colour", "green", "'green' is not one of 'red', 'blue'"),
        ("part", {"weight": 1}, "is missing"),
        ("part", {"name": "x", "size": 1}, "is not a parameter; parameters: name, weight, tags"),
        ("when", "2026-11-25T10:30:00", "has no timezone"),
        ("when", "yesterday", "is not a date and time"),
        ("either", None, "null is not"),
        ("model", {"size": 0}, "greater than or equal to 1"),
    ],
)
def test_errors_name_parameter_locally_and_by_schema(name: str, value: Any, problem: str) -> None:
    given = {"text": "a", "number": 1, name: value}
    parameters = parameters_of(everything)
    with pytest.raises(InvalidInputError) as local:
        parameters.check(given)
    assert local.value.field.startswith(name)
    assert problem in local.value.problem
    with pytest.raises(InvalidInputError) as published:
        check_schema(given, parameters.schema)
    assert published.value.field.startswith(name)


@pytest.mark.parametrize(
    ("name", "value", "field"), [("share", 10**400, "share"), ("table", {"a": -(10**400)}, "table.a")]
)
def test_number_beyond_float_is_refused(name: str, value: Any, field: str) -> None:
    """Regression: it raised OverflowError, which a server answered with 500."""
    with pytest.raises(InvalidInputError, match="is not a number of at most") as refused:
        parameters_of(everything).check({"text": "a", "number": 1, name: value})
    assert refused.value.field == field


@pytest.mark.parametrize("check", [lambda p, v: p.check(v), lambda p, v: check_schema(v, p.schema)])
def test_missing_and_unknown_parameters_are_named(check: Callable[[Any, Any], None]) -> None:
    parameters = parameters_of(everything)
    with pytest.raises(InvalidInputError, match="number: is missing"):
        check(parameters, {"text": "a"})
    with pytest.raises(InvalidInputError, match="nonsense: is not a parameter; parameters: text, number"):
        check(parameters, {"text": "a", "number": 1, "nonsense": 1})


def test_published_schema_accepts_what_handler_accepts() -> None:
    check_schema(PLAIN, parameters_of(everything).schema)


def test_schema_shows_defaults_except_secrets() -> None:
    def handler(run: Run, size: int = 3, part: Part = Part("x"), token: Secret = Secret("hush")) -> None: ...  # noqa: B008

    handler.__annotations__ = {"run": Run, "size": int, "part": Part, "token": Secret}
    parameters = parameters_of(handler)
    assert parameters.schema["properties"]["size"] == {"type": "integer", "default": 3}
    assert parameters.schema["properties"]["part"]["default"]["name"] == "x"
    assert "hush" not in str(parameters.schema)
    assert parameters.secrets == ("token",)
    assert parameters.required == []


def test_nested_secret_makes_parameter_secret() -> None:
    def handler(run: Run, logins: dict[str, list[Secret]]) -> None: ...

    handler.__annotations__ = {"logins": dict[str, list[Secret]]}
    assert parameters_of(handler).secrets == ("logins",)


def test_secret_repr_is_masked() -> None:
    assert repr(Secret("hush")) == "Secret('***')"
    assert repr({"token": Secret("hush")}) == "{'token': Secret('***')}"
    assert Secret("hush") == "hush"


def no_run() -> None: ...
def wrong_run(index: str) -> None: ...
def untyped(run: Run, index) -> None: ...  # type: ignore[no-untyped-def]
def raw_bytes(run: Run, data: bytes) -> None: ...
def a_complex(run: Run, pair: tuple[int, complex]) -> None: ...
def a_predicate(run: Run, name: Annotated[str, Predicate(str.islower)]) -> None: ...
def int_keys(run: Run, table: dict[int, str]) -> None: ...
def star(run: Run, *names: str) -> None: ...
def stars(run: Run, **options: str) -> None: ...
def positional(run: Run, name: str, /) -> None: ...
def only_checked(run: Run, table: OrderedDict[str, int]) -> None: ...
def wrong_default(run: Run, size: int = None) -> None: ...  # type: ignore[assignment] # noqa: RUF013
def bytes_literal(run: Run, x: Literal[b"a"]) -> None: ...


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (no_run, "the first parameter is the Run; write def no_run(run: Run, ...)"),
        (wrong_run, "the first parameter is the Run"),
        (untyped, "annotate it, as in index: str"),
        (raw_bytes, "bytes is not supported as a parameter; use str, int"),
        (a_complex, "complex is not supported as a parameter"),
        (a_predicate, "is not supported in Annotated; use Ge, Le"),
        (int_keys, "use dict[str, ...]"),
        (star, "give each parameter a name and a type"),
        (stars, "give each parameter a name and a type"),
        (positional, "is positional-only, but parameters are passed by name; remove the '/'"),
        (only_checked, "import the type at module level"),
        (wrong_default, "append  | None"),
        (bytes_literal, "is not JSON-serialisable"),
    ],
)
def test_unsupported_parameter_is_rejected_with_remedy(function: Callable[..., Any], remedy: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parameters_of(function)
    assert remedy in str(refused.value)
    assert function.__name__ in str(refused.value)


def test_values_bind_like_a_call() -> None:
    parameters = parameters_of(everything)
    assert parameters.bind(("a", 3), {"flag": True}) == {"text": "a", "number": 3, "flag": True}
    with pytest.raises(InvalidInputError, match="text: is given twice"):
        parameters.bind(("a",), {"text": "b"})
    with pytest.raises(InvalidInputError, match="positional values"):
        parameters.bind(tuple(range(30)), {})
