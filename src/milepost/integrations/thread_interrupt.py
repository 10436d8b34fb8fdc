"""Interrupts a thread whose code ignores its stop, for task queues that run jobs in threads of their workers."""

from __future__ import annotations

import ctypes

INTERRUPTED = "interrupted (exception in its thread)"
"""The method of the receipt."""


class HardStop(BaseException):
    """Raised in a thread whose code ignores the grace period."""


def interrupt(thread: int) -> str:
    """Raise HardStop in the thread with this ident; it arrives at the next Python instruction, not inside C calls.

    Return the method for the receipt.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(HardStop))
    return INTERRUPTED
