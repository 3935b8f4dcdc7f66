"""What tells webhooks, over a real ledger: order, retries, what is dropped, and what a crash leaves."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from support.archive import feed_at
from support.daemon import Site
from support.ledgers import RECEIPT, Clock, opened, version
from support.patience import PATIENCE
from support.receiver import Answer, hang, receiving, reset, saying
from support.stores import session
from tablefeed.announce import Announcer
from tablefeed.assembly import assembled
from tablefeed.clock import steady
from tablefeed.config import load, to_feeds
from tablefeed.errors import BadAnswer, Busy, EventRefused, FileRefused, Transient, Unreachable
from tablefeed.ledger import Ledger, Want
from tablefeed.ledger.outbox import Bounds, Dropped
from tablefeed.model import Entry, Feed, Notice, Order
from tablefeed.news import Archived, Blocked, Delivered, Unblocked
from tablefeed.notices import Notices
from tablefeed.notify import Sender
from tablefeed.receiver import Means
from tablefeed.service import read_keys
from tablefeed.webhook import Poster

URL = "https://hooks.example/secret"
BUSY = Busy("https://hooks.example", 503)
REFUSED = EventRefused("https://hooks.example", 400)
GONE = EventRefused("https://hooks.example", 410)


@dataclass
class Desk:
    """A sender over a real ledger, whose receiver answers by a script: errors by the event's id, then it accepts."""

    ledger: Ledger
    feeds: dict[str, Feed]
    script: dict[str, list[Exception]] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    jitter: float = 0.0

    async def post(self, url: str, notice: Notice, secret: str | None) -> None:
        self.tried.append(notice.id)
        if self.script.get(notice.id):
            raise self.script[notice.id].pop(0)
        self.accepted.append(notice.id)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, 0.01))

    def notices(self) -> Notices:
        return Notices("here", lambda _: None, clock=time.time)

    def sender(self) -> Sender:
        means = Means(
            outbox=self.ledger.outbox,
            post=self.post,
            secrets={},
            feeds=self.feeds,
            slots=asyncio.Semaphore(4),
            wall=time.time,
            steady=steady,
            sleep=self.sleep,
            random=lambda: self.jitter,
        )
        return Sender(means, Announcer(self.feeds, self.ledger.outbox, self.notices(), lambda _: None), keep=0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Sender]:
        sender = self.sender()
        task = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def tell(self) -> None:
        """Until all is told, or dropped."""
        async with self.running(), asyncio.timeout(PATIENCE):
            while await self.waiting():
                await asyncio.sleep(0.005)

    async def put(self, *ids: str, feed: str = "orders") -> None:
        """Events, by their ids."""
        for event_id in ids:
            await self.ledger.set_paused(feed, None, Notice(feed, "feed.resumed", event_id, "{}"))

    async def waiting(self) -> list[str]:
        found = await self.ledger.outbox.waiting(round(time.time() * 1000) + 1_000_000, [*self.feeds], 1000)
        return [letter.notice.id for letter in found.letters]


def feeds_at(root: Path, **urls: str) -> dict[str, Feed]:
    return {name: replace(feed_at(root), name=name, notify_url=url) for name, url in urls.items()}


@asynccontextmanager
async def desk_at(root: Path, clock: Clock | None = None, **urls: str) -> AsyncIterator[Desk]:
    async with opened(root / "ledger.db", clock or Clock(time.time())) as ledger:
        yield Desk(ledger, feeds_at(root, **(urls or {"orders": URL})))


async def test_events_of_one_url_go_in_order_whatever_feeds_they_are_of(tmp_path: Path) -> None:
    """And what fails holds those behind it."""
    async with desk_at(tmp_path, orders=URL, items=URL) as desk:
        for n in range(0, 10, 2):
            await desk.put(str(n))
            await desk.put(str(n + 1), feed="items")
        desk.script["3"] = [BUSY, BUSY, Unreachable("https://hooks.example", "reset")]
        await desk.tell()
    assert desk.accepted == [str(n) for n in range(10)]
    assert desk.tried == ["0", "1", "2", "3", "3", "3", *(str(n) for n in range(3, 10))]


async def test_a_refused_event_lets_others_go_first_and_is_tried_again(tmp_path: Path) -> None:
    """One that its receiver cannot take blocks nothing."""
    async with desk_at(tmp_path) as desk:
        desk.jitter = 0.02
        await desk.put("a", "b", "c")
        desk.script["a"] = [REFUSED] * 2
        await desk.tell()
    assert desk.accepted[0] == "b"
    assert sorted(desk.accepted) == ["a", "b", "c"]
    assert desk.tried.count("a") == 3


async def test_an_event_that_is_refused_for_a_day_is_dropped_loudly(tmp_path: Path) -> None:
    """And not before."""
    for age, dropped in ((0.5, False), (1.5, True)):
        root = tmp_path / str(age)
        root.mkdir()
        async with desk_at(root, Clock(time.time() - age * 86_400)) as desk:
            await desk.put("a")
            desk.script["a"] = [REFUSED] * 30
            with capture_logs() as logs:
                await desk.tell()
        assert ("a" in desk.accepted) is not dropped
        assert (len(desk.tried) == 12) is dropped
        told = [(log["log_level"], log["count"], log["reason"]) for log in logs if log["event"] == "webhook_dropped"]
        assert told == ([("error", 1, "https://hooks.example refused the event (400)")] if dropped else [])
        assert "secret" not in str(logs)


async def test_a_receiver_that_is_gone_drops_all_that_waits_in_one_go(tmp_path: Path) -> None:
    """Also for the other feeds with its URL."""
    async with desk_at(tmp_path, orders=URL, items=URL) as desk:
        await desk.put("a", "b")
        await desk.put("c", feed="items")
        await desk.put("d")
        desk.script["a"] = [GONE]
        with capture_logs() as logs:
            async with desk.running() as sender, asyncio.timeout(PATIENCE):
                while await desk.waiting():
                    await asyncio.sleep(0.005)
                await desk.put("e")
                sender.wake("orders")
                while await desk.waiting():
                    await asyncio.sleep(0.005)
    assert desk.accepted == ["e"]
    assert [log["count"] for log in logs if log["event"] == "webhook_dropped"] == [4]


async def test_what_the_receiver_asks_for_is_waited(tmp_path: Path) -> None:
    """`Retry-After` counts."""
    async with desk_at(tmp_path) as desk:
        desk.jitter = 0.5
        await desk.put("a")
        desk.script["a"] = [Busy("https://hooks.example", 429, retry_after=77.0)]
        await desk.tell()
    assert 77.5 in desk.slept


async def test_what_waited_for_too_long_or_for_nobody_is_dropped_and_told(tmp_path: Path) -> None:
    """A week, more than may wait of one feed, a feed without a webhook: each with its count."""
    clock = Clock(time.time() - 8 * 86_400)
    async with desk_at(tmp_path, clock) as desk:
        await desk.put("old-1", "old-2")
        clock.now = time.time()
        await desk.put("stranger", feed="removed")
        await desk.put("new")
        with capture_logs() as logs:
            await desk.tell()
        assert desk.accepted == ["new"]
        told = {(*log["feeds"], log["count"], log["reason"]) for log in logs if log["event"] == "webhook_dropped"}
        assert told == {
            ("orders", 2, "its receiver has not taken it for too long"),
            ("removed", 1, "the feed has no notify_url any more"),
        }
        await desk.put(*"abcdefg")
        now = round(clock.now * 1000)
        gone: list[Dropped] = []
        while found := await desk.ledger.outbox.bound(Bounds(("orders",), now - 1000, most=3, limit=2)):
            gone += found.values()
        assert gone == [Dropped(surplus=2), Dropped(surplus=2)]
        assert await desk.waiting() == ["e", "f", "g"]


async def test_a_ledger_that_cannot_be_written_keeps_no_sender_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was accepted is told again by the next one, then."""

    async def never(_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    reached = asyncio.Event()
    monkeypatch.setattr("tablefeed.receiver.CLOSING", 0.05)
    async with desk_at(tmp_path) as desk:
        await desk.put("a")
        with monkeypatch.context() as patched:
            patched.setattr(desk.ledger.outbox, "forget", never)
            async with asyncio.timeout(PATIENCE), desk.running():
                await reached.wait()
        assert await desk.waiting() == ["a"]
        await desk.tell()
    assert desk.accepted == ["a", "a"]


async def test_trouble_is_told_once_over_restarts_and_so_is_its_end(tmp_path: Path) -> None:
    """The gates are forgotten with the process; what was told is not."""

    async def hear(desk: Desk, *items: Blocked | Unblocked | Delivered | Archived) -> list[str]:
        announcer = Announcer(desk.feeds, desk.ledger.outbox, desk.notices(), lambda _: None)
        task = asyncio.create_task(announcer.run())
        while not announcer._told and await desk.ledger.outbox.announced():
            await asyncio.sleep(0)
        for item in items:
            announcer.note(item)
        await announcer.settled()
        task.cancel()
        found = await desk.ledger.outbox.waiting(round(time.time() * 1000) + 1000, [*desk.feeds], 100)
        return [f"{it.notice.event} {json.loads(it.notice.body)['place']}" for it in found.letters]

    async with desk_at(tmp_path, orders=URL, silent="") as desk:
        [entry] = [await an_entry(desk.ledger)]
        blocked = [Blocked("orders", place, "no", "mend") for place in ("delivery", "archive", "delivery")]
        assert await hear(desk, *blocked, Blocked("silent", "archive", "no", "mend")) == [
            "feed.paused delivery",
            "feed.paused archive",
        ]
        assert len(await hear(desk, *blocked)) == 2
        delivered = Delivered("orders", entry, RECEIPT)
        assert (await hear(desk, delivered, delivered))[2:] == ["feed.resumed delivery"]
        assert (await hear(desk, delivered, Archived("orders", entry, 0.1), Unblocked("orders", "archive")))[3:] == [
            "feed.resumed archive"
        ]
        assert (await hear(desk, *blocked))[4:] == ["feed.paused delivery", "feed.paused archive"]


async def an_entry(ledger: Ledger) -> Entry:
    """A row that is being sent."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim([Want("orders", Order.OLDEST, 1)])
    return entry


async def test_only_what_changed_its_row_is_told(tmp_path: Path) -> None:
    """A transition that comes late, or twice, leaves one event."""
    async with desk_at(tmp_path) as desk:
        entry = await an_entry(desk.ledger)
        notices = [Notice("orders", "file.delivered", event_id, "{}") for event_id in "ab"]
        assert await desk.ledger.uploaded(entry.id, RECEIPT, notice=notices[0])
        assert not await desk.ledger.uploaded(entry.id, RECEIPT, notice=notices[1])
        refused = FileRefused("a.csv", "too large", "Split it")
        assert not await desk.ledger.rejected(entry.id, refused, Notice("orders", "file.rejected", "c", "{}"))
        await desk.ledger.refuse(version("b.csv"), refused, Notice("orders", "file.rejected", "d", "{}"))
        assert await desk.waiting() == ["a", "d"]


async def test_pausing_by_hand_is_told_as_such(site: Site) -> None:
    """By whom, and when it goes on."""
    async with receiving() as receiver:
        site.feed("orders", notify_url=receiver.url)
        settings = load(site.config, {})
        async with assembled(settings, to_feeds(settings, {}), read_keys(settings, {})) as parts:
            telling = asyncio.create_task(parts.webhooks.run())
            await parts.pauses.pause("orders")
            await parts.pauses.resume("orders")
            await receiver.until_accepted(2)
            telling.cancel()
            await asyncio.wait([telling])
    assert [(body["event"], body["by"]) for body in receiver.told()] == [
        ("feed.paused", "operator"),
        ("feed.resumed", "operator"),
    ]


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (saying(200), None, ""),
        (saying(204), None, ""),
        (saying(302, Location="http://127.0.0.1:1/elsewhere"), BadAnswer, "302; redirects are not followed"),
        (saying(408), Busy, "answered 408"),
        (saying(429, **{"Retry-After": "7"}), Busy, "answered 429"),
        (saying(500), Busy, "answered 500"),
        (saying(400), EventRefused, "refused the event (400)"),
        (saying(404), EventRefused, "refused the event (404)"),
        (saying(410), EventRefused, "refused the event (410)"),
        (reset, Unreachable, "closed the connection"),
        (hang, Unreachable, "did not answer in time"),
    ],
)
async def test_what_answers_mean(answer: Answer, expected: type[Exception] | None, words: str) -> None:
    """2xx accepts, the rest passes or not; no error shows more of the URL than its origin."""
    notice = Notice("orders", "file.delivered", "id-1", '{"a":1}')
    async with receiving(answer) as receiver, session() as made:
        post = Poster(made, wall=time.time, timeout=0.5)
        if expected is None:
            await post(receiver.url, notice, None)
        else:
            with pytest.raises(expected) as raised:
                await post(receiver.url, notice, None)
            assert words in str(raised.value)
            assert receiver.origin in str(raised.value)
            assert "s3cret" not in str(raised.value)
            if isinstance(raised.value, Transient):
                assert raised.value.retry_after == (7.0 if "429" in words else None)
        assert len(receiver.posts) == 1, "redirects are not followed, and nothing is repeated"


async def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    """A receiver that accepts has accepted, however much it has to say."""
    pieces = 0

    async def endless(request: web.Request, _: object) -> web.StreamResponse:
        nonlocal pieces
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x" * 65_536)
            pieces += 1
        return response

    async with receiving(endless) as receiver, session() as made:
        await Poster(made, wall=time.time)(receiver.url, Notice("o", "file.delivered", "id", "{}"), None)
    assert pieces < 1_000, "all but what buffers on the way hold stays unread"


outcomes = st.lists(st.sampled_from([BUSY, REFUSED, Unreachable("https://hooks.example", "reset")]), max_size=3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, made once."""

    async def make() -> None:
        async with opened(place):
            pass

    place = tmp_path_factory.mktemp("outbox") / "ledger.db"
    asyncio.run(make())
    return place


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scripts=st.lists(st.tuples(st.sampled_from(["orders", "items"]), outcomes), min_size=1, max_size=8),
    ends=st.lists(st.integers(0, 12), max_size=3),
    same=st.booleans(),
)
def test_whatever_receivers_do_and_whenever_the_sender_ends_each_event_is_accepted(
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
    scripts: Sequence[tuple[str, list[Exception]]],
    ends: Sequence[int],
    same: bool,
) -> None:
    """At least once; once where nothing ended; in order within a URL, but for what was refused."""

    async def play() -> None:
        async with desk_at(root, orders=URL, items=URL if same else URL + "-2") as desk:
            for number, (feed, script) in enumerate(scripts):
                await desk.put(str(number), feed=feed)
                desk.script[str(number)] = [*script]
            for tries in ends:
                until = len(desk.tried) + tries
                async with desk.running(), asyncio.timeout(PATIENCE):
                    while len(desk.tried) < until and await desk.waiting():
                        await asyncio.sleep(0)
            await desk.tell()
            firsts = [*dict.fromkeys(desk.accepted)]
            assert sorted(firsts, key=int) == [str(number) for number in range(len(scripts))]
            if not ends:
                assert firsts == desk.accepted
            refused = {str(n) for n, (_, script) in enumerate(scripts) if REFUSED in script}
            for line in [{"orders", "items"}] if same else [{"orders"}, {"items"}]:
                mine = [int(it) for it in firsts if scripts[int(it)][0] in line and it not in refused]
                assert mine == sorted(mine)

    root = tmp_path_factory.mktemp("given")
    shutil.copy(template, root / "ledger.db")
    asyncio.run(play())
