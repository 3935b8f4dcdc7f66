import asyncio

import pytest

from support.patience import PATIENCE
from tablefeed.limit import Limit


async def entered(limit: Limit, go: asyncio.Event, inside: list[int], number: int) -> None:
    async with limit:
        inside.append(number)
        await go.wait()
    inside.remove(number)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_go_on_and_a_change_counts_at_once() -> None:
    """More are let in as it grows, and as it shrinks nobody is until enough have ended; all come in their order."""
    limit, go = Limit(2), asyncio.Event()
    inside: list[int] = []
    tasks = [asyncio.create_task(entered(limit, go, inside, number)) for number in range(5)]
    await settled()
    assert inside == [0, 1]
    limit.change(3)
    await settled()
    assert inside == [0, 1, 2]
    limit.change(1)
    await settled()
    assert inside == [0, 1, 2]
    go.set()
    await asyncio.gather(*tasks)
    assert inside == []


@pytest.mark.parametrize("when", ["waiting", "let in"])
async def test_one_that_gives_up_keeps_no_place(when: str) -> None:
    """Cancelled while it waits, or in the instant in which its turn has come."""
    limit, go = Limit(1), asyncio.Event()
    inside: list[int] = []
    first = asyncio.create_task(entered(limit, go, inside, 1))
    await settled()
    waiting = asyncio.create_task(entered(limit, asyncio.Event(), inside, 2))
    await settled()
    if when == "let in":
        limit.change(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    await first
    async with asyncio.timeout(PATIENCE), limit:
        assert inside == []
