"""The options of commands that set fields of jobs, as the table of fields has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import click

from milepost.cli.arguments import WholeNumber, amounts_of, labels_of
from milepost.core.options import Option
from milepost.core.record import OPTIONS
from milepost.core.serialization import seconds


def field_options(names: Collection[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds the options that set these fields of a job."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, option in reversed(OPTIONS.items()):
            if option.flag and name in names:
                kind, more = _PARAMETERS.get(option.kind, _text)(option)
                command = click.option(option.flag, name, type=kind, help=option.help, **more)(command)
        return command

    return add


def given_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a submit for the values that the command line gave, without those that are not set."""
    values = {name: _value(OPTIONS[name], value) for name, value in given.items() if name in OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def _text(option: Option) -> tuple[Any, dict[str, Any]]:
    return str, {"metavar": option.flag.rpartition("-")[2].upper()}


_PARAMETERS: dict[str, Callable[[Option], tuple[Any, dict[str, Any]]]] = {
    "whole": lambda option: (WholeNumber(option.low, option.high), {}),
    "choice": lambda option: (click.Choice(option.choices), {}),
    "duration": lambda option: (str, {"metavar": "TIME"}),
    "labels": lambda option: (str, {"metavar": "NAME=VALUE", "multiple": True}),
    "groups": lambda option: (str, {"metavar": "GROUP", "multiple": True}),
    "amounts": lambda option: (str, {"metavar": "NAME=AMOUNT", "multiple": True}),
}


def _value(option: Option, given: Any) -> Any:
    """Return what was given for an option as a submit takes it."""
    if option.kind == "labels":
        return labels_of(given) or None
    if option.kind == "groups":
        return list(given) or None
    if option.kind == "amounts":
        return amounts_of(given, option.flag) or None
    return seconds(given, option.flag) if given is not None and option.kind == "duration" else given
