"""Questions of a run and the answers of people.

All questions of a job are one value of its record, `questions`. A change names the version that it was made from, so
that of two changes at once one is refused and made again from the new version.
"""

from __future__ import annotations

from milepost.core.placement import ANSWER
from milepost.core.transitions.change import Change, Const, Field, Guard, Operation, Param
from milepost.core.transitions.table import ACTIVE, HOLDS_TOKEN, PENDING, RUNNING, bind, branch, template

_AS_READ: Guard = ("eq", "questions_version", Param("version"))
_SET: tuple[Operation, ...] = (
    ("set", "questions", Param("questions")),
    ("add", "questions_version", Const("1")),
)
_CLOSE: tuple[Operation, ...] = (*_SET, ("clear", "asking"), ("clear", "ask_expires"))
_WAKE: tuple[Operation, ...] = (("clear", "held"), ("stamp", "wake_at"), ("stamp", "stale", Field("dispatch_after")))
_RAISE_BUDGET: Operation = ("set", "usage_budget", Param("budget"))
_IS_ASKED: Guard = ("eq", "asking", Param("key"))
_IN_TIME: Guard = ("ahead", "ask_expires")

_ASK = template(
    "ask",
    ("token", "version", "questions", "key", "expires", "data"),
    branch(
        (RUNNING,),
        guards=(HOLDS_TOKEN, _AS_READ),
        ops=(
            *_SET,
            ("set", "asking", Param("key")),
            ("clear", "ask_expires"),
            ("set", "ask_expires", Param("expires")),
        ),
        event="asked",
        keep="list",
        data=Param("data"),
    ),
    retention="steps",
)
_ASK_FROM_BELOW = template(
    "ask_from_below",
    ("version", "questions", "data"),
    # What the job itself does meanwhile, and waits for, stays as it is.
    branch(ACTIVE, guards=(_AS_READ,), ops=_SET, event="asked", keep="list", data=Param("data")),
    retention="callers",
)
_SETTLE = template(
    "settle_question",
    ("token", "version", "questions", "key", "data"),
    # The question of this key has expired.
    branch(
        (RUNNING,),
        guards=(HOLDS_TOKEN, _AS_READ, _IS_ASKED, ("past", "ask_expires")),
        ops=_CLOSE,
        event="step",
        keep="list",
        data=Param("data"),
    ),
    # It was answered before it was asked.
    branch(
        (RUNNING,),
        guards=(HOLDS_TOKEN, _AS_READ, ("ne", "asking", Param("key"))),
        ops=_SET,
        event="step",
        keep="list",
        data=Param("data"),
    ),
    retention="steps",
)
_ANSWER = template(
    "answer",
    ("version", "questions", "key", "held", "data", "budget"),
    branch(
        (PENDING,),
        guards=(_AS_READ, _IN_TIME, ("eq", "held", Param("held"))),
        ops=(*_CLOSE, _RAISE_BUDGET, *_WAKE),
        event="answered",
        keep="list",
        data=Param("data"),
    ),
    branch(
        (PENDING,),
        guards=(_AS_READ, _IN_TIME, ("eq", "held_before", Param("held"))),
        ops=(*_CLOSE, _RAISE_BUDGET, ("clear", "held_before"), ("stamp", "wake_before")),
        event="answered",
        keep="list",
        data=Param("data"),
    ),
    *(
        branch(
            ACTIVE,
            guards=(_AS_READ, *guards),
            ops=(*ops, _RAISE_BUDGET),
            event="answered",
            keep="list",
            data=Param("data"),
        )
        for guards, ops in (((_IS_ASKED, _IN_TIME), _CLOSE), ((("ne", "asking", Param("key")),), _SET))
    ),
    retention="callers",
)
_WAKE_BELOW = template(
    "wake_below",
    ("held", "data"),
    branch(
        (PENDING,),
        guards=(("eq", "held", Param("held")),),
        ops=_WAKE,
        event="answered",
        keep="list",
        data=Param("data"),
    ),
)


def plan_ask(
    operation_id: str, token: str, *, version: str, questions: str, key: str, expires: int | None, data: str
) -> Change:
    """Ask a question: `key` waits for an answer until `expires`. `questions` are all of the job, `version` is as read.

    `data` is what the event says, a JSON object.
    """
    until = None if expires is None else str(expires)
    return bind(
        _ASK, operation_id, token=token, version=version, questions=questions, key=key, expires=until, data=data
    )


def plan_settle_question(operation_id: str, token: str, *, version: str, questions: str, key: str, data: str) -> Change:
    """Keep what a run makes of a question that it need not wait for: it expired, or was answered before it was asked."""
    return bind(_SETTLE, operation_id, token=token, version=version, questions=questions, key=key, data=data)


def plan_ask_from_below(operation_id: str, *, version: str, questions: str, data: str) -> Change:
    """Ask a question for a job that has not ended, from the run of one of its descendants. The job does not wait for it."""
    return bind(_ASK_FROM_BELOW, operation_id, version=version, questions=questions, data=data)


def plan_answer(
    operation_id: str, *, version: str, questions: str, key: str, data: str, budget: str | None = None
) -> Change:
    """Answer a question of a job that has not ended, and wake the job if it waits for it; refused once it has expired.

    Also keeps an answer to a question that was not asked yet. `budget` is the new budget of the job, if the answer raises it.
    """
    return bind(
        _ANSWER,
        operation_id,
        version=version,
        questions=questions,
        key=key,
        held=ANSWER + key,
        data=data,
        budget=budget,
    )


def plan_wake_below(operation_id: str, key: str, *, data: str) -> Change:
    """Wake a job that waits for the answer to a question which a job above it has asked. `key` is what it waits for."""
    return bind(_WAKE_BELOW, operation_id, held=ANSWER + key, data=data)
