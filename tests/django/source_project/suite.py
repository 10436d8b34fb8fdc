"""The classes of `tests/tasks` in Django's source that apply to a backend, and the reason for each test that does not.

`test_custom_backend` does not apply: its classes define backends of their own.
"""

from typing import Any

from django.test import override_settings
from tasks import test_dummy_backend, test_immediate_backend, test_tasks

OTHER_CLASS = "asserts that the backend is Django's own class"
IN_TRANSACTION = "milepost enqueues when the transaction commits"
SUPPORTED = "asserts that the backend cannot do it; milepost can"
MUTATED = "changes the list in which the dummy backend keeps its results"
IN_WORKER = "the exception is raised in a worker, not where the task is enqueued"


def applied(case: type[Any], backends: dict[str, Any], excluded: dict[str, str]) -> type[Any]:
    """Return a class of Django's tests for other backends, without the tests that do not apply."""
    missing = [name for name in excluded if not hasattr(case, name)]
    assert not missing, f"{case.__name__} no longer has {missing}"
    found: type[Any] = type(case.__name__, (case,), {"__module__": __name__, **dict.fromkeys(excluded)})
    return override_settings(TASKS=backends)(found)


def backend(name: str, *queues: str) -> dict[str, Any]:
    """Return an entry of TASKS."""
    return {"BACKEND": f"backends.{name}", "QUEUES": list(queues)}


TaskTests = applied(
    test_tasks.TaskTestCase,
    {
        "default": backend("WaitingBackend", "default", "queue_1"),
        "immediate": backend("FinishingBackend"),
        "missing": {"BACKEND": "does.not.exist"},
    },
    {"test_using_correct_backend": OTHER_CLASS, "test_get_backend": OTHER_CLASS},
)
WaitingTests = applied(
    test_dummy_backend.DummyBackendTestCase,
    {"default": backend("WaitingBackend")},
    {
        "test_using_correct_backend": OTHER_CLASS,
        "test_refresh_result": MUTATED,
        "test_refresh_result_async": MUTATED,
    },
)
FinishingTests = applied(
    test_immediate_backend.ImmediateBackendTestCase,
    {"default": backend("FinishingBackend")},
    {
        "test_using_correct_backend": OTHER_CLASS,
        "test_throws_keyboard_interrupt": IN_WORKER,
        "test_cannot_get_result": SUPPORTED,
        "test_cannot_refresh_result": SUPPORTED,
        "test_cannot_pass_run_after": SUPPORTED,
    },
)
TransactionTests = [
    applied(case, {}, {"test_doesnt_wait_until_transaction_commit_by_default": IN_TRANSACTION})
    for case in (
        test_dummy_backend.DummyBackendTransactionTestCase,
        test_immediate_backend.ImmediateBackendTransactionTestCase,
    )
]
"""Classes without a test that applies; they show that Django's source has no others in them."""
