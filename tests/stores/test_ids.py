"""Ids of forked processes, and the order of operation ids."""

import os

import pytest

from milepost.stores.ids import new_nonce, new_operation_id

COUNT = 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_fork_never_repeats_parent_ids() -> None:
    """Ids that were generated in advance were used by the parent and by each of its forked workers."""
    new_operation_id(), new_nonce()
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(here, " ".join(make() for make in (new_operation_id, new_nonce) for _ in range(COUNT)).encode())
        finally:
            os._exit(0)
    os.close(here)
    with open(there) as answer:
        theirs = answer.read().split()
    os.waitpid(child, 0)
    ours = [make() for make in (new_operation_id, new_nonce) for _ in range(COUNT)]
    assert len(theirs) == 2 * COUNT
    assert len({*ours, *theirs}) == 4 * COUNT


def test_nonces_have_eleven_characters_and_differ() -> None:
    nonces = [new_nonce() for _ in range(1000)]
    assert {len(nonce) for nonce in nonces} == {11}
    assert len(set(nonces)) == 1000
