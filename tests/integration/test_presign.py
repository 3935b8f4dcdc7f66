import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ledgers import Clock, opened, version
from tablefeed.clock import ServerClocks
from tablefeed.errors import BadAnswer, FeedBlocked
from tablefeed.ledger import Ledger, Want
from tablefeed.model import ApiAccess, Entry, Feed, Grant, Order
from tablefeed.presign import Presigner, is_fresh
from tablefeed.upload import grant_headers

ACCESS = ApiAccess("https://api.example", "tenant-1", "file /k")
FEED = Feed("orders", Path("/d"), "table-1", ACCESS, dataset_id="dataset-1")


@dataclass
class Api:
    """Gives URLs that live for `lifetime` seconds of `clock`, and counts."""

    clock: Clock
    lifetime: int = 3600
    origin: str = "https://api.example"
    urls: int = 0
    lookups: int = 0
    asked: list[dict[str, object]] = field(default_factory=list)
    error: Exception | None = None
    url: str | None = None

    async def presigned_upload_url(self, datatable_id: str, **query: object) -> str:
        self.asked.append(query)
        if self.error:
            raise self.error
        self.urls += 1
        return self.url or f"https://store.example/{self.urls}?Expires={round(self.clock.now) + self.lifetime}"

    async def find_dataset(self, datatable_id: str) -> str:
        self.lookups += 1
        await asyncio.sleep(0)
        return f"dataset-{self.lookups}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    async with opened(tmp_path / "ledger.db", clock) as ledger:
        yield ledger


@pytest.fixture
async def entry(ledger: Ledger) -> Entry:
    await ledger.enqueue([version(mtime_ns=1_700_000_000_123_456_789)])
    [entry] = await ledger.claim([Want("orders", Order.OLDEST, 1)])
    return entry


def presigner(api: Api, ledger: Ledger, clock: Clock, *, clocks: ServerClocks | None = None) -> Presigner:
    return Presigner(
        lambda access: api,
        ledger,
        grant_headers,
        clocks=clocks or ServerClocks(clock, clock),
        lifetime=3600.0,
        margin=60.0,
    )


async def test_a_valid_grant_is_used_again(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """As long as it lives, the same object is written, so that no second one is made."""
    api = Api(clock)
    grants = presigner(api, ledger, clock)
    first = await grants.with_grant(FEED, entry)
    clock.now += 3500
    assert await grants.with_grant(FEED, first) == first
    assert api.urls == 1


async def test_a_grant_is_replaced_before_it_expires(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """With less than the margin left another one is fetched, before it is used and not after it failed."""
    api = Api(clock)
    grants = presigner(api, ledger, clock)
    first = await grants.with_grant(FEED, entry)
    clock.now += 3541
    second = await grants.with_grant(FEED, first)
    assert second.grant != first.grant
    assert api.urls == 2


async def test_a_grant_is_durable_before_it_is_used(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """A daemon that dies during the upload finds it in the ledger."""
    got = await presigner(Api(clock), ledger, clock).with_grant(FEED, entry)
    [(kept, _)] = await ledger.open_entries(["orders"], 10)
    assert kept.grant == got.grant


async def test_expiry_is_judged_on_the_servers_clock(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """A local clock that is ten minutes slow does not make an old grant look fresh."""
    server = Clock(clock.now + 600)
    clocks = ServerClocks(clock, clock)
    clocks.observe("https://api.example", "Tue, 14 Nov 2023 22:23:20 GMT")
    api = Api(server, lifetime=300)
    grants = presigner(api, ledger, clock, clocks=clocks)
    first = await grants.with_grant(FEED, entry)
    assert (await grants.with_grant(FEED, first)).grant == first.grant
    clock.now += 250
    server.now += 250
    assert (await grants.with_grant(FEED, first)).grant != first.grant


async def test_the_call_names_file_size_and_time(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """Time in whole milliseconds, as the vendor's shell client sends it."""
    api = Api(clock)
    await presigner(api, ledger, clock).with_grant(FEED, entry)
    assert api.asked == [
        {
            "dataset_id": "dataset-1",
            "filename": "a.csv",
            "size": 10,
            "modified_ms": 1_700_000_000_123,
            "lifetime": 3600.0,
        }
    ]


async def test_a_dataset_is_looked_up_once_and_kept(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """Many files at once cause one lookup, and a new daemon none."""
    feed = replace(FEED, dataset_id=None)
    api = Api(clock)
    grants = presigner(api, ledger, clock)
    await asyncio.gather(*(grants.with_grant(feed, entry) for _ in range(20)))
    await presigner(api, ledger, clock).with_grant(feed, entry)
    assert api.lookups == 1
    assert {str(query["dataset_id"]) for query in api.asked} == {"dataset-1"}


async def test_a_dataset_that_is_refused_is_looked_up_again(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """A datatable that moved to another dataset is found there at the next probe."""
    feed = replace(FEED, dataset_id=None)
    api = Api(clock)
    grants = presigner(api, ledger, clock)
    await grants.with_grant(feed, entry)
    api.error = FeedBlocked("404", "Check")
    with pytest.raises(FeedBlocked):
        await grants.with_grant(feed, entry)
    api.error = None
    await grants.with_grant(feed, entry)
    assert api.lookups == 2
    assert api.asked[-1]["dataset_id"] == "dataset-2"


async def test_an_old_file_is_told_as_of_1970(ledger: Ledger, clock: Clock) -> None:
    """No API takes a negative time."""
    api = Api(clock)
    await ledger.enqueue([version(mtime_ns=-5)])
    [entry] = await ledger.claim([Want("orders", Order.OLDEST, 1)])
    await presigner(api, ledger, clock).with_grant(FEED, entry)
    assert api.asked[0]["modified_ms"] == 0


DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # where the clock stands at first


async def test_a_url_that_comes_too_old_is_not_used(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """It had expired by the very clock of the API that gave it, and would only fail at the store."""
    clocks = ServerClocks(clock, clock)
    clocks.observe("https://api.example", DATE)
    with pytest.raises(BadAnswer, match="had expired before it came"):
        await presigner(Api(clock, lifetime=-5), ledger, clock, clocks=clocks).with_grant(FEED, entry)


async def test_a_wrong_clock_of_our_own_turns_no_url_away(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """As long as no server has told its time, only the store can tell whether a URL is too old."""
    assert (await presigner(Api(clock, lifetime=-600), ledger, clock).with_grant(FEED, entry)).grant


async def test_a_store_that_told_nonsense_once_is_asked_again(ledger: Ledger, entry: Entry, clock: Clock) -> None:
    """One node with a clock years ahead makes all grants look old; nothing but another answer can mend that."""
    clocks = ServerClocks(clock, clock)
    clocks.observe("https://api.example", DATE)
    clocks.observe("https://store.example", "Tue, 14 Nov 2033 22:13:20 GMT")
    api = Api(clock)
    grants = presigner(api, ledger, clock, clocks=clocks)
    first = await grants.with_grant(FEED, entry)
    assert await grants.with_grant(FEED, first) == first
    assert api.urls == 1


async def test_a_kept_grant_is_not_thrown_away_for_a_clock_of_ours_that_is_fast(
    ledger: Ledger, entry: Entry, clock: Clock
) -> None:
    """After a restart it looks old until the API has told its time: the same object is written all the same."""
    local = Clock(clock.now + 600)
    clocks = ServerClocks(local, local)

    class Telling(Api):
        async def presigned_upload_url(self, datatable_id: str, **query: object) -> str:
            clocks.observe(self.origin, DATE)
            return await super().presigned_upload_url(datatable_id, **query)

    first = await presigner(Api(clock, lifetime=300), ledger, clock).with_grant(FEED, entry)
    again = await presigner(Telling(clock, lifetime=300), ledger, clock, clocks=clocks).with_grant(FEED, first)
    assert again == first


@pytest.mark.parametrize("url", ["", "nonsense", "https://[::1", "mailto:x@example.org"])
async def test_what_is_no_url_is_a_bad_answer(ledger: Ledger, entry: Entry, clock: Clock, url: str) -> None:
    """The API's answers are not trusted."""
    with pytest.raises(BadAnswer):
        await presigner(Api(clock, url=url or " "), ledger, clock).with_grant(FEED, entry)


@given(st.integers(0, 10**7), st.floats(0.5, 10**6), st.floats(0, 10**4))
def test_a_fresh_grant_is_never_expired_and_a_new_one_is_fresh(left_ms: int, lifetime: float, margin: float) -> None:
    """No margin makes a grant of any lifetime useless, and none makes an expired one usable."""
    grant = Grant("https://s/k", 10**12, lifetime)
    if is_fresh(grant, 10**12 - left_ms, margin):
        assert left_ms > 0
    assert is_fresh(grant, 10**12 - round(lifetime * 1000), margin)
    assert not is_fresh(grant, 10**12, margin)
