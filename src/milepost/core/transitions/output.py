"""What a run streams: a chunk of output beside the record, fenced by its token."""

from __future__ import annotations

from milepost.core.serialization import US
from milepost.core.transitions.operations import Branch, Change, Guard, Operation, Param
from milepost.core.transitions.table import ANY, HOLDS_TOKEN, RUNNING, TransitionTemplate, bind, branch, template


def _outputs(event: str) -> TransitionTemplate:
    ops: tuple[Operation, ...] = (
        ("put", Param("key"), Param("chunk")),
        ("erase", Param("erased")),
        ("add", "output_bytes", Param("added")),
    )

    def write(statuses: tuple[str, ...], *guards: Guard) -> Branch:
        return branch(statuses, guards=guards, ops=ops, event=event, keep="feed")

    return template(
        "output",
        ("token", "key", "chunk", "erased", "added"),
        write((RUNNING,), HOLDS_TOKEN),
        write(ANY, ("stopping", Param("token")), ("eq", "stop_token", Param("token"))),
        retention="reports",
    )


_OUTPUT, _SILENT_OUTPUT = _outputs("output"), _outputs("")


def plan_output(
    operation_id: str, token: str, *, key: str, chunk: str, added: int, erased: tuple[str, ...] = (), silent: bool = False
) -> Change:  # fmt: skip
    """Write a chunk of the output of a run under its key, and delete the chunks that it displaces.

    `added` is the size of the new text in bytes. `silent`: without an event, as for all but the last chunk of a request.
    Accepted under a draining lease of this record too, as log lines are.
    """
    form = _SILENT_OUTPUT if silent else _OUTPUT
    keys = US.join(erased) or None
    return bind(form, operation_id, token=token, key=key, chunk=chunk, erased=keys, added=str(added))
