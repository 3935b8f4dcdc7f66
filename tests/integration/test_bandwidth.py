"""The bandwidth: what arrives at a store, in how much time, and from whom."""

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest

from support.patience import PATIENCE
from support.stores import grant_for, listening, uploading
from tablefeed.errors import GrantExpired, Stalled
from tablefeed.lease import writer_unknown
from tablefeed.model import FileVersion
from tablefeed.throttle import Throttle
from tablefeed.upload import Progress
from tablefeed.upload.body import FileBody
from tablefeed.upload.source import Source

MIB = 2**20
WINDOW = 10.0


class Meter:
    """A store that notes when how many bytes of which upload came, and answers when it has all."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, str, int]] = []
        self.news = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        name = head.split()[1].partition("?")[0].strip("/")
        missing = int(head.lower().split("content-length: ")[1].split()[0])
        if "100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while missing:
            piece = await reader.read(MIB)
            if not piece:
                return
            missing -= len(piece)
            self.arrivals.append((time.monotonic(), name, len(piece)))
            self.news.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    @property
    def received(self) -> int:
        """Bytes so far."""
        return sum(size for _, _, size in self.arrivals)

    @property
    def lasted(self) -> float:
        """Seconds between the first bytes and the latest."""
        return self.arrivals[-1][0] - self.arrivals[0][0] if self.arrivals else 0.0

    async def until(self, received: int = 0, lasted: float = 0.0, uploads: int = 1) -> None:
        """Wait until so much has come, for so long, of so many."""
        async with asyncio.timeout(PATIENCE):
            while self.received < received or self.lasted < lasted or len(self.within(0, math.inf)) < uploads:
                self.news.clear()
                await self.news.wait()

    def within(self, begin: float, end: float) -> Counter[str]:
        """Bytes of each upload between two moments, in seconds after the first bytes."""
        found: Counter[str] = Counter()
        for moment, name, size in self.arrivals:
            if begin <= moment - self.arrivals[0][0] < end:
                found[name] += size
        return found


def sparse(path: Path, size: int) -> FileVersion:
    """A file of zeros that takes no space, and its version."""
    with path.open("wb") as file:
        file.truncate(size)
    return FileVersion.of("orders", path.name, path.stat())


@asynccontextmanager
async def sending(
    directory: Path, throttle: Throttle, meter: Meter, *, count: int, size: int, stall_timeout: float = 20.0
) -> AsyncIterator[list[asyncio.Task[object]]]:
    """That many uploads under way; at the end they are cut off."""
    async with (
        listening(meter) as origin,
        uploading(stall_timeout=stall_timeout, admit=throttle.admit, connections=count) as uploader,
    ):
        tasks: list[asyncio.Task[object]] = []
        for number in range(count):
            version = sparse(directory / f"{count}-{number}.csv", size)
            grant = grant_for(f"{origin}/{number}?X-Amz-Signature=5ecre7")
            tasks.append(asyncio.create_task(uploader.upload(directory, version, grant, Progress(size))))
        try:
            yield tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def measured(directory: Path, rate: int, count: int) -> Meter:
    """What arrives of that many endless uploads: in a little more than the window, and in one from when all send."""
    meter = Meter()
    async with sending(directory, Throttle(rate, time.time), meter, count=count, size=2**40) as tasks:
        await meter.until(uploads=count)
        await meter.until(lasted=meter.lasted + WINDOW + 1.5)
        assert not [task for task in tasks if task.done()]
    return meter


def ratios(meter: Meter, rate: int) -> list[float]:
    """What came in windows of ten seconds, the first and later ones, by what the limit allows."""
    windows = {begin: meter.within(begin, begin + WINDOW).total() for begin in (0.0, 0.5, 1.0, 1.5)}
    return [came / (rate * WINDOW) for came in windows.values()]


@pytest.mark.alone
async def test_a_limit_holds_within_5_percent_over_ten_seconds(tmp_path: Path) -> None:
    """5 MiB/s with 1 and with 16 uploads: in the first ten seconds, in later ones, and for each of the 16 the same.

    Never more than that. Where it was less, a machine that stood still may be why, and it is measured again.
    """
    rate, counts = 5 * MIB, (1, 16)
    for _ in range(3):
        meters = await asyncio.gather(*(measured(tmp_path, rate, count) for count in counts))
        found = [ratio for meter in meters for ratio in ratios(meter, rate)]
        print("of the limit, with 1 and with 16 uploads:", *(f"{ratio:.3f}" for ratio in found))
        assert max(found) < 1.05
        for count, meter in zip(counts, meters, strict=True):
            share = meter.within(meter.lasted - WINDOW, math.inf)
            assert len(share) == count
            assert max(share.values()) - min(share.values()) < 0.1 * max(share.values())
        if min(found) > 0.95:
            return
    pytest.fail("three times less than the limit allows")


@pytest.mark.alone
async def test_a_low_limit_is_kept_without_stalls(tmp_path: Path) -> None:
    """Uploads that wait longer for their turn than the stall timeout are not given up, and send in small pieces."""
    rate, count, size = 64 * 2**10, 40, 8 * 2**10
    meter = Meter()
    throttle = Throttle(rate, time.time)
    async with sending(tmp_path, throttle, meter, count=count, size=size, stall_timeout=0.4) as tasks:
        await asyncio.gather(*tasks)
    assert meter.received == count * size
    assert 0.85 * count * size / rate - 0.3 < meter.lasted < 2 * count * size / rate
    assert max(size for _, _, size in meter.arrivals) <= rate / 4


async def test_a_store_that_takes_nothing_is_noticed_under_a_limit(tmp_path: Path) -> None:
    """What waits for its turn is excused; what may go and does not is a stall."""
    taken = asyncio.Event()

    async def take_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        taken.set()

    version = sparse(tmp_path / "a.csv", 100 * MIB)
    throttle = Throttle(50 * MIB, time.time)
    async with listening(take_the_head) as origin, uploading(stall_timeout=0.5, admit=throttle.admit) as uploader:
        with pytest.raises(Stalled):
            await uploader.upload(tmp_path, version, grant_for(f"{origin}/a?X-Amz-Signature=a"), Progress(0))
    assert taken.is_set()


async def test_only_an_upload_that_has_nothing_on_the_way_is_held_back(tmp_path: Path) -> None:
    """While the kernel does not take what went before, the wait for a turn is no excuse for standing still."""
    version = sparse(tmp_path / "a.csv", 1000)
    source = Source(tmp_path, version, MIB, writer_unknown)
    transport = Mock(**{"get_write_buffer_size.return_value": 10, "get_extra_info.return_value": None})
    waits, turns = asyncio.Event(), iter((100,))

    async def admit(_wanted: int) -> int:
        if (allowed := next(turns, None)) is not None:
            return allowed
        waits.set()
        return await asyncio.Future[int]()

    with ThreadPoolExecutor(1) as executor:
        body = FileBody(source, executor, admit)
        assert not body.is_held_back()
        writing = asyncio.create_task(body.write(AsyncMock(transport=transport)))
        await waits.wait()
        assert (body.sent(), body.is_held_back()) == (90, False)
        transport.get_write_buffer_size.return_value = 0
        assert (body.sent(), body.is_held_back()) == (100, True)
        writing.cancel()
        await asyncio.wait([writing])
        assert not body.is_held_back()
    source.close()


async def test_a_refusal_is_heard_while_an_upload_waits_for_its_turn(tmp_path: Path) -> None:
    """The store's early answer ends the upload, with its reason, long before the body has gone out."""
    refusal = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(100)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(refusal), refusal))

    version = sparse(tmp_path / "a.csv", 10 * MIB)
    throttle = Throttle(2**10, time.time)
    async with listening(refuse) as origin, uploading(admit=throttle.admit) as uploader:
        with pytest.raises(GrantExpired, match="Request has expired"):
            async with asyncio.timeout(PATIENCE):
                await uploader.upload(tmp_path, version, grant_for(f"{origin}/a?X-Amz-Signature=a"), Progress(0))


@pytest.mark.alone
async def test_another_limit_is_in_force_at_once_for_all_that_wait(tmp_path: Path) -> None:
    """Raised, or taken away: uploads that wait at 20 KiB/s, or at 2 MiB/s, do not wait until that lets them go."""
    meter = Meter()
    throttle = Throttle(20 * 2**10, time.time)
    async with sending(tmp_path, throttle, meter, count=24, size=MIB) as tasks:
        await meter.until(received=1)
        begun = time.monotonic()
        await asyncio.wait(tasks, timeout=0.5)
        assert meter.received < 20 * 2**10 * (time.monotonic() - begun + 1)
        throttle.follow(2 * MIB)
        begun = time.monotonic()
        await meter.until(received=2 * MIB)
        assert time.monotonic() - begun < 10, "100 s at the rate before"
        throttle.override(None)
        begun = time.monotonic()
        await asyncio.gather(*tasks)
        assert time.monotonic() - begun < 5, "11 s at the rate before"


@pytest.mark.alone
async def test_a_limit_takes_hold_of_uploads_that_had_none(tmp_path: Path) -> None:
    """What has gone at full speed goes on at the new rate."""
    meter = Meter()
    throttle = Throttle(None, time.time)
    async with sending(tmp_path, throttle, meter, count=2, size=2**40) as tasks:
        await meter.until(received=64 * MIB)
        throttle.override(MIB)
        changed = meter.lasted
        await meter.until(lasted=changed + 3)
        assert not [task for task in tasks if task.done()]
    assert 0.5 < meter.within(changed + 1, changed + 3).total() / (2 * MIB) < 1.1


@pytest.mark.alone
async def test_an_upload_that_waits_is_cut_off_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The drain's end: no descriptor stays open, no turn stays taken, and the next upload gets the whole limit."""
    throttle = Throttle(16 * 2**10, time.time)
    meter = Meter()
    async with sending(tmp_path, throttle, meter, count=16, size=MIB) as tasks:
        await meter.until(uploads=16)
        begun = time.monotonic()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert time.monotonic() - begun < 5, "minutes, if each waited for its turn"
        assert not [name for name in open_files() if name.startswith(str(tmp_path))]
    throttle.override(MIB)
    async with sending(tmp_path, throttle, Meter(), count=1, size=2 * MIB) as again, asyncio.timeout(20):
        await asyncio.gather(*again)


def open_files() -> list[str]:
    """What the process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found
