"""Tests that measure how long something takes have the machine to themselves: those of other workers wait meanwhile."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_DOOR, _ROOM = Path(__file__), Path(__file__).with_name("__init__.py")
"""Locks of all processes that run these tests. Who wants the room for itself keeps the door until it has left."""


@contextmanager
def beside_others() -> Iterator[None]:
    """For a test that others may run beside: wait while one is alone, or is about to be."""
    with ExitStack() as room:
        with _locked(_DOOR, fcntl.LOCK_SH):
            room.enter_context(_locked(_ROOM, fcntl.LOCK_SH))
        yield


@contextmanager
def alone() -> Iterator[None]:
    """For a test that measures time: let no other begin, and wait until those that run have ended."""
    with _locked(_DOOR, fcntl.LOCK_EX), _locked(_ROOM, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    with path.open() as file:
        fcntl.flock(file, how)
        yield
