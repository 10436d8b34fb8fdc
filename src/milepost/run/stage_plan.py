"""The stages that a run names beforehand, with their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import finite_number, safe_str, single_line, wrong_type


def weights_of(stages: Iterable[object]) -> dict[str, float]:
    """Return the weights of stages, each given as a name or as a name with its weight. Raises InvalidInputError."""
    weights: dict[str, float] = {}
    for stage in stages:
        match stage if isinstance(stage, tuple) else (stage, 1.0):
            case (str(name), weight) if (number := finite_number(weight)) is not None and number > 0:
                weights[name] = float(number)
            case _:
                text = "must be a name, or a name and a weight above 0, such as 'Load' or ('Embed', 9)"
                raise InvalidInputError("plan", f"{single_line(safe_str(stage), 80)} {text}")
    return weights


def weights_of_mapping(plan: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weights of the stages that a mapping names. Raises InvalidInputError."""
    if plan is not None and not isinstance(plan, Mapping):
        raise wrong_type("plan", plan, '; pass names with weights, such as {"Load": 1, "Embed": 9}')
    return weights_of((plan or {}).items())
