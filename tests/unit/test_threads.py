"""Threads for calls that block: results, errors, cancellation, the number of threads, the end."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from tablefeed.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(3, "test")
    yield made
    made.shutdown()


async def test_a_call_gives_what_the_function_returns_or_raises(threads: Threads) -> None:
    """In the caller, whether one or hundreds are made at once."""
    assert await threads.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.call(divmod, 7, 0)
    assert await asyncio.gather(*(threads.call(divmod, n, 10) for n in range(300))) == [
        divmod(n, 10) for n in range(300)
    ]


async def test_a_call_runs_in_a_thread_of_that_name_beside_others(threads: Threads) -> None:
    """As many as are allowed run at a time; the next waits for one of them."""
    barrier, after = threading.Barrier(4), threading.Event()
    together = [threads.call(barrier.wait, 60) for _ in range(3)]
    behind = threads.call(after.set)
    while barrier.n_waiting < 3:
        await asyncio.sleep(0)
    assert not after.is_set()
    await asyncio.to_thread(barrier.wait, 60)
    assert sorted(await asyncio.gather(*together)) != []
    await behind
    assert (await threads.call(threading.current_thread)).name.startswith("test_")
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("test_")]) <= 3


async def test_a_cancelled_caller_disturbs_nobody_and_the_call_is_made_all_the_same(threads: Threads) -> None:
    """So that a file which is being opened can be closed, and one that is to be closed is."""
    begin, made = threading.Event(), threading.Event()

    def call() -> None:
        begin.wait(60)
        made.set()

    cancelled = threads.call(call)
    cancelled.cancel()
    begin.set()
    assert await asyncio.to_thread(made.wait, 60)
    assert await threads.call(divmod, 1, 1) == (1, 0)


async def test_what_ends_together_wakes_the_loop_once(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that come while the loop is busy are handed back in one turn."""
    loop, woken = asyncio.get_running_loop(), 0
    original = loop.call_soon_threadsafe

    def counted(*args: object, **kwargs: object) -> asyncio.Handle:
        nonlocal woken
        woken += 1
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    calls = [threads.call(divmod, 7, 2) for _ in range(30)]
    all_free = threading.Barrier(4)
    for _ in range(3):
        threads.submit(all_free.wait, 60)
    all_free.wait(60)
    assert await asyncio.gather(*calls) == [(3, 1)] * 30
    assert woken == 1


async def test_it_is_an_executor(threads: Threads) -> None:
    """For libraries that take one."""
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(threads, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads, divmod, 7, 0)


async def test_after_shutdown_no_call_is_made() -> None:
    """Calls that were made end first; those that have not begun are cancelled where that is asked for."""
    threads = Threads(1, "test")
    begin, begun = threading.Event(), threading.Event()

    def call() -> str:
        begun.set()
        begin.wait(60)
        return "done"

    first = threads.submit(call)
    assert await asyncio.to_thread(begun.wait, 60)
    second = threads.submit(call)
    threads.shutdown(wait=False, cancel_futures=True)
    begin.set()
    assert await asyncio.wrap_future(first) == "done"
    with pytest.raises(CancelledError):
        second.result()
    with pytest.raises(RuntimeError, match="shutdown"):
        threads.call(call)
