"""One pass, for cron: deliver what is there, and tell what was left."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from tablefeed.assembly import Parts
from tablefeed.clock import steady
from tablefeed.errors import Exit
from tablefeed.model import Entry, State

log = structlog.get_logger("service")

PATIENCE = 30.0
"""Seconds that a pass waits for a file to become whole, and for a delivery to succeed, before it leaves the rest."""
_TOLD = 1_000
"""Files that are told one by one."""


@dataclass(frozen=True, slots=True)
class Left:
    """What `--once` did not deliver: (feed, path, why)."""

    files: tuple[tuple[str, str, str], ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> Exit:
        """0 when nothing was left."""
        return Exit.UNDELIVERED if self.files or self.troubles else Exit.DONE


async def deliver_all(parts: Parts) -> tuple[tuple[str, str, str], ...]:
    """Queue all that is whole, then wait until it is delivered or nothing has moved for a while.

    Returns (feed, path, why) of what is not whole. The dispatcher must be running.
    """
    for feed in parts.feeds:
        await parts.ledger.may_scan(feed)  # what is cleaned is what this node looks after, as it does in a moment
    await parts.housekeeper.tidy()
    while True:
        waiting = await _settled(parts)
        began = steady()
        while not await _exhausted(parts, began):
            parts.changed.clear()
            await first_of(parts.changed.wait(), asyncio.sleep(1.0))
        if not any(intake.has_hints for intake in parts.intakes.values()):
            return waiting


async def _settled(parts: Parts) -> tuple[tuple[str, str, str], ...]:
    """Queue all that is whole; returns (feed, path, why) of what is not."""
    intakes = parts.intakes.items()
    left = await asyncio.gather(*(intake.settle_all(PATIENCE) for _, intake in intakes))
    return tuple(
        (name, path, wait.reason)
        for (name, _), paths in zip(intakes, left, strict=True)
        for path, wait in paths.items()
    )


async def _exhausted(parts: Parts, began: float) -> bool:
    """Whether nothing is left to do, or what is left has not moved for long enough, counted from `began` on."""
    if parts.dispatcher.in_flight:
        return False
    waiting = {feed for feed, _ in await parts.ledger.counts() if feed in parts.feeds}
    if waiting <= {*parts.gates.paused(), *parts.pauses}:
        return True
    return steady() - max(began, parts.pipeline.progressed_at) > PATIENCE


async def left_of(parts: Parts, waiting: tuple[tuple[str, str, str], ...]) -> Left:
    """What was not delivered when the pass has ended, in the log too; `waiting` is what was not whole."""
    left = [
        (entry.version.feed, entry.version.path, _why(parts, entry, reason))
        for entry, reason in await parts.ledger.open_entries([*parts.feeds], limit=_TOLD)
    ]
    files = (*waiting, *left, *parts.refusals.latest)
    for feed, path, reason in files:
        log.warning("not_delivered", feed=feed, path=path, reason=reason)
    log.info("pass_ended", delivered=parts.pipeline.delivered, left=len(files), troubles=len(parts.troubles))
    return Left(files, {feed: str(trouble) for feed, trouble in parts.troubles.items()})


def _why(parts: Parts, entry: Entry, reason: str | None) -> str:
    if entry.version.feed in parts.pauses:
        return "somebody has paused its feed: resume it on the status page of the daemon"
    if entry.state is State.UPLOADED:
        return f"it was delivered, but could not be archived yet: {reason}"
    return reason or "it was not its turn yet"


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of these, and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
