import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.patience import PATIENCE
from tablefeed.batch import FULL, LONGEST_LINGER, Batcher, linger


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Worker:
    """A process function that notes its batches, and waits before each until it is let through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.gate = threading.Semaphore(0)

    def __call__(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        self.begun.set()
        assert self.gate.acquire(timeout=PATIENCE)
        return [ValueError(f"{item} is odd") if item % 2 else item * 10 for item in items]


async def begun(worker: Worker) -> None:
    await asyncio.to_thread(worker.begun.wait, 10)
    worker.begun.clear()


async def submitted(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.submit(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_what_arrives_while_a_batch_runs_is_the_next_batch(executor: ThreadPoolExecutor) -> None:
    """Items submitted in one turn of the loop share a batch, those that come while it runs share the next one."""
    worker = Worker()
    batcher = Batcher(worker, executor=executor)
    first = await submitted(batcher, 0, 2)
    await begun(worker)
    later = await submitted(batcher, 4, 6, 8)
    worker.gate.release(10)
    assert list(await asyncio.gather(*first, *later)) == [0, 20, 40, 60, 80]
    assert worker.batches == [[0, 2], [4, 6, 8]]


async def test_a_caller_wakes_when_its_own_batch_is_done(executor: ThreadPoolExecutor) -> None:
    """The first batch's callers have their results while the second one still runs."""
    worker = Worker()
    batcher = Batcher(worker, executor=executor)
    [first] = await submitted(batcher, 2)
    await begun(worker)
    [second] = await submitted(batcher, 4)
    worker.gate.release()
    assert await first == 20
    assert not second.done()
    worker.gate.release()
    assert await second == 40


async def test_a_batch_has_a_largest_size(executor: ThreadPoolExecutor) -> None:
    """No batch is larger than `max_batch`, and the order of arrival is kept over all of them."""
    worker = Worker()
    worker.gate.release(10)
    batcher = Batcher(worker, executor=executor, max_batch=4)
    await asyncio.gather(*(batcher.submit(item) for item in range(0, 20, 2)))
    assert worker.batches == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]


async def test_an_item_fails_alone(executor: ThreadPoolExecutor) -> None:
    """An exception that is returned for one item is raised in its caller only."""
    worker = Worker()
    worker.gate.release(10)
    batcher = Batcher(worker, executor=executor)
    good, bad, other = await asyncio.gather(*(batcher.submit(item) for item in (2, 3, 4)), return_exceptions=True)
    assert (good, other) == (20, 40)
    assert isinstance(bad, ValueError)
    assert str(bad) == "3 is odd"


async def test_what_process_raises_goes_to_every_caller_of_the_batch(executor: ThreadPoolExecutor) -> None:
    """A batch that fails as a whole fails for all of its callers, and the next one runs all the same."""

    def process(items: list[int]) -> list[int | Exception]:
        if len(items) > 1:
            raise OSError("disk full")
        return [7]

    batcher = Batcher(process, executor=executor)
    results = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert [str(result) for result in results] == ["disk full", "disk full"]
    assert await batcher.submit(3) == 7


async def test_a_wrong_number_of_results_fails_the_batch(executor: ThreadPoolExecutor) -> None:
    """No caller gets another's result or waits for ever when `process` returns too few."""

    def process(items: list[int]) -> list[int | Exception]:
        return [1]

    batcher = Batcher(process, executor=executor)
    results = await asyncio.gather(batcher.submit(1), batcher.submit(2), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, RuntimeError]


async def test_a_cancelled_caller_takes_back_what_has_not_begun(executor: ThreadPoolExecutor) -> None:
    """An item whose caller is cancelled while it waits is never processed; its neighbours are."""
    worker = Worker()
    batcher = Batcher(worker, executor=executor)
    [running] = await submitted(batcher, 2)
    await begun(worker)
    before, cancelled, after = await submitted(batcher, 4, 6, 8)
    cancelled.cancel()
    worker.gate.release(10)
    assert list(await asyncio.gather(running, before, after)) == [20, 40, 80]
    assert cancelled.cancelled()
    assert worker.batches == [[2], [4, 8]]


async def test_a_cancelled_caller_disturbs_no_running_batch(executor: ThreadPoolExecutor) -> None:
    """When a caller is cancelled while its batch runs, the others of it and those behind get their results."""
    worker = Worker()
    batcher = Batcher(worker, executor=executor)
    cancelled, other = await submitted(batcher, 2, 4)
    await begun(worker)
    [behind] = await submitted(batcher, 6)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    worker.gate.release(10)
    assert list(await asyncio.gather(other, behind)) == [40, 60]
    assert worker.batches == [[2, 4], [6]]


async def test_close_drains(executor: ThreadPoolExecutor) -> None:
    """`close` returns when all that was submitted is done, and nothing is taken after it."""
    worker = Worker()
    batcher = Batcher(worker, executor=executor, max_batch=1)
    tasks = await submitted(batcher, 2, 4, 6)
    closing = asyncio.create_task(batcher.close())
    await begun(worker)
    assert not closing.done()
    worker.gate.release(10)
    await closing
    assert [task.result() for task in tasks] == [20, 40, 60]
    with pytest.raises(RuntimeError, match="after close"):
        await batcher.submit(8)
    await batcher.close()


async def test_nobody_waits_for_an_executor_that_was_shut_down() -> None:
    """Callers get an error, not silence, when the executor takes no more work."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    batcher = Batcher(Worker(), executor=executor, max_batch=1)
    results = await asyncio.gather(*(batcher.submit(item) for item in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 3
    await batcher.close()


async def test_it_is_cheap(executor: ThreadPoolExecutor) -> None:
    """Ten thousand items of a hundred callers need far fewer hops to the thread than items."""
    hops: list[int] = []

    def process(items: list[int]) -> list[int | Exception]:
        hops.append(len(items))
        return list(items)

    batcher = Batcher(process, executor=executor)

    async def caller() -> None:
        for item in range(100):
            assert await batcher.submit(item) == item

    await asyncio.gather(*(caller() for _ in range(100)))
    assert sum(hops) == 10_000
    assert len(hops) <= 200


def test_one_caller_alone_never_waits_for_company() -> None:
    """What follows a batch of one begins at once; the fuller the last batch was the longer, but never for long."""
    assert linger(0) == linger(1) == 0
    seconds = [linger(last) for last in range(1, 2_000)]
    assert seconds == sorted(seconds)
    assert 0 < seconds[1] < seconds[-1] == LONGEST_LINGER


class Lingering:
    """A batcher whose batches wait for ever for more, once there was one of several items."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.batches: list[list[int]] = []
        self.batcher: Batcher[int, int] = Batcher(
            self._process, executor=executor, linger=lambda last: 3600.0 if last > 1 else 0.0
        )

    def _process(self, items: list[int]) -> list[int | Exception]:
        self.batches.append(items)
        return [*items]


async def test_a_batch_waits_for_others_where_there_were_some_until_it_is_full(executor: ThreadPoolExecutor) -> None:
    """It begins with the item that makes it full, whatever time is left."""
    lingering = Lingering(executor)
    await asyncio.gather(*await submitted(lingering.batcher, 1, 2))
    waiting = await submitted(lingering.batcher, *range(FULL - 1))
    last = await submitted(lingering.batcher, FULL - 1)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*waiting, *last)
    assert lingering.batches == [[1, 2], [*range(FULL)]]


async def test_a_batch_that_waits_for_others_has_its_time(executor: ThreadPoolExecutor) -> None:
    """It begins without them when the time is up, and the next one, after a caller alone, at once."""
    lingers: list[int] = []

    def short(last: int) -> float:
        lingers.append(last)
        return linger(last)

    batcher: Batcher[int, int] = Batcher(lambda items: [*items], executor=executor, linger=short)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*await submitted(batcher, 1, 2))
        assert await batcher.submit(3) == 3
        assert await batcher.submit(4) == 4
    assert 2 in lingers
    assert lingers[-1] == 1


async def test_close_lets_no_batch_wait_for_others(executor: ThreadPoolExecutor) -> None:
    """What waits then is done at once."""
    lingering = Lingering(executor)
    await asyncio.gather(*await submitted(lingering.batcher, 1, 2))
    [waiting] = await submitted(lingering.batcher, 3)
    async with asyncio.timeout(PATIENCE):
        await lingering.batcher.close()
    assert await waiting == 3
