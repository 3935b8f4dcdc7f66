"""How many files to claim next, and of which feeds. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What the plan needs to know of a feed that may have due files."""

    feed: str
    in_flight: int
    limit: int
    """Of this feed alone, look-ahead included; 0: none."""
    priority: int
    allowance: int | None
    """What its gates let through now; None: any number."""


def plan(demands: Sequence[Demand], room: int) -> dict[str, int]:
    """How many files to claim of each feed, given in the order of their turns.

    `room` is shared out evenly, the highest priority first; a feed with nothing in flight gets one even without room.
    """
    wants: dict[str, int] = {}
    spare = {demand.feed: _spare(demand, room) for demand in demands}
    for priority in sorted({demand.priority for demand in demands}, reverse=True):
        peers = [demand.feed for demand in demands if demand.priority == priority]
        while room > 0 and (hungry := [feed for feed in peers if spare[feed] > wants.get(feed, 0)]):
            portion = max(1, room // len(hungry))
            for feed in hungry:
                got = min(portion, spare[feed] - wants.get(feed, 0), room)
                wants[feed] = wants.get(feed, 0) + got
                room -= got
    for demand in demands:
        if demand.in_flight == 0 and spare[demand.feed] > 0:
            wants[demand.feed] = max(1, wants.get(demand.feed, 0))
    return {feed: count for feed, count in wants.items() if count > 0}


def refill(slots: int, in_flight: int) -> int:
    """How many more to claim for so many slots: some at a time, or none yet."""
    room = 2 * slots + 2 - in_flight
    return room if room >= max(1, slots // 2) else 0


def _spare(demand: Demand, room: int) -> int:
    limits = [max(room, 1)]
    if demand.limit:
        limits.append(max(0, demand.limit - demand.in_flight))
    if demand.allowance is not None:
        limits.append(demand.allowance)
    return min(limits)
