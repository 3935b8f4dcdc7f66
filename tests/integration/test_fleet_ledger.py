"""What several nodes may do to one ledger, and what one may not do any more when its lease is over."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random
from string import ascii_letters, digits
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from support.ledgers import GRANT, RECEIPT, Clock, joined, version
from support.patience import PATIENCE, until
from support.postgres import Postgres
from support.proxy import Loss, Proxy, proxied
from tablefeed.errors import Exit, FileRefused, LedgerUnusable, Unreachable
from tablefeed.ledger import Closing, Failure, Ledger, Purge, Want, engine, nodes, postgres
from tablefeed.ledger.feeds import FeedRecord
from tablefeed.ledger.nodes import KEPT
from tablefeed.ledger.outbox import Bounds, Dropped
from tablefeed.model import Entry, FileVersion, Notice, Order, State

LEASE = 60.0
ERROR = Unreachable("https://s.example", "refused")
REFUSED = FileRefused("a.csv", "too large", "Split it")


class Steady:
    """Seconds that only grow, when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """A database, and the clocks of those that share it."""

    server: Postgres
    url: str
    clock: Clock = field(default_factory=Clock)
    waits: list[float] = field(default_factory=list)
    """Seconds for which nodes have waited between two tries."""

    @asynccontextmanager
    async def node(
        self, name: str, *, shared: bool = True, now: Callable[[], float] | None = None, url: str = ""
    ) -> AsyncIterator[Ledger]:
        """A node that serves the feed `orders`. Between two tries it waits for a moment alone."""

        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            await asyncio.sleep(0.02)

        async with joined(url or self.url, name, self.clock, LEASE, now or Steady(), sleep) as ledger:
            await ledger.know(["orders"], ["orders"] if shared else [])
            yield ledger

    def ask(self, statement: str) -> str:
        """What the ledger says to SQL."""
        return self.server.execute(self.url.rpartition("/")[2], statement)

    def rows(self) -> str:
        """All that is kept of files."""
        return self.ask("SELECT * FROM files ORDER BY id")

    def expire(self, node: str) -> None:
        """Let a node's lease end, as if it had given no sign of life."""
        self.ask(f"UPDATE nodes SET lease_until = 1 WHERE name = '{node}'")  # noqa: S608 - a name of this test's


@pytest.fixture
def site(postgres: Postgres) -> Site:
    return Site(postgres, postgres.database())


def want(limit: int = 100, **more: Any) -> list[Want]:
    return [Want("orders", Order.NAME, limit, **more)]


async def stay(ledger: Ledger, now: Steady, seconds: float) -> None:
    """Give signs of life for a while."""
    for _ in range(round(3 * seconds / LEASE) + 1):
        await ledger.beat()
        now.now += LEASE / 3
    await ledger.beat()


async def taken_over(site: Site, node: str, by: Ledger, now: Steady) -> None:
    """Let a node be found over by another."""
    await stay(by, now, LEASE)
    site.expire(node)
    beat = await by.beat()
    assert beat.over == (node,)


def files(count: int, **more: Any) -> list[FileVersion]:
    return [version(f"{number}.csv", mtime_ns=number + 1, **more) for number in range(count)]


async def test_a_node_whose_lease_is_over_changes_nothing(site: Site) -> None:
    """Its grants, receipts, moves, failures and refusals do not count; who has the files now has their grants too."""
    now = Steady()
    async with site.node("one") as one, site.node("two", now=now) as two:
        await one.enqueue(files(7))
        entries = await one.claim(want())
        for entry in entries:
            assert await one.granted(entry.id, GRANT)
        assert await one.uploaded(entries[0].id, RECEIPT)
        await taken_over(site, "one", two, now)
        mine = await two.claim(want())
        assert [(entry.version.path, entry.grant is None) for entry in mine] == [
            (f"{number}.csv", number == 0) for number in range(7)
        ]
        assert [entry.grant for entry in mine[1:]] == [GRANT] * 6
        before = site.rows()
        ids = [entry.id for entry in entries]
        assert not await one.archived(Closing(ids[0], "/archive/0.csv"))
        assert not await one.granted(ids[1], GRANT)
        assert not await one.uploaded(ids[2], RECEIPT)
        assert not await one.rejected(ids[3], REFUSED)
        assert not await one.gone(ids[4])
        await one.failed(Failure(ids[5], ERROR, site.clock.ms, keep_grant=False))
        await one.put_back(ids[6])
        assert site.rows() == before
        assert all([await two.archived(Closing(ids[0])), await two.uploaded(ids[2], RECEIPT), await two.gone(ids[4])])


async def test_a_node_that_was_found_over_begins_anew(site: Site) -> None:
    """It claims nothing until its next epoch, and holds nothing of its last one."""
    now = Steady()
    async with site.node("one") as one, site.node("two", now=now) as two:
        await one.enqueue(files(2))
        [entry] = await one.claim(want(1))
        await taken_over(site, "one", two, now)
        assert await one.claim(want()) == []
        assert not (await one.beat()).holds
        assert not one.holds(entry.id)
        assert not await one.confirm(entry.id)
        assert await one.claim(want()) == [], "it still works on what it held"
        one.give_up(entry.id)
        assert [claimed.version.path for claimed in await one.claim(want())] == ["0.csv", "1.csv"]
        assert (await one.beat()).holds


async def test_a_lease_counts_from_what_is_durable(site: Site) -> None:
    """A sign of life whose commit never reached the database lets a node move nothing, however often it is tried."""
    now = Steady()
    async with (
        proxied(site.server.port) as way,
        site.node("one", now=now, url=through(way, site)) as one,
    ):
        await one.enqueue(files(1))
        [entry] = await one.claim(want())
        now.now += LEASE - 1
        assert one.holds(entry.id)
        way.lose = lambda data: Loss.REQUEST if b"COMMIT" in data else None
        beating = asyncio.create_task(one.beat())
        await until(lambda: len(site.waits) >= 3)
        now.now += 2
        assert not one.holds(entry.id)
        assert one.trouble
        way.lose = lambda _: None
        assert (await beating).holds
        assert await one.confirm(entry.id)
        assert not one.trouble


async def test_a_node_without_word_from_the_database_waits_before_it_moves(site: Site) -> None:
    """Whoever cannot tell whether its lease is over asks first, and is told."""
    now = Steady()
    async with site.node("one", now=now) as one:
        await one.enqueue(files(1))
        [entry] = await one.claim(want())
        now.now += LEASE
        assert not one.holds(entry.id)
        assert await one.confirm(entry.id)
        assert one.holds(entry.id)


async def test_after_an_outage_nobody_is_taken_for_dead_at_once(site: Site) -> None:
    """Where the database was away for longer than a lease, the first that is back leaves the others time to return."""
    now = Steady()
    async with (
        proxied(site.server.port) as way,
        site.node("one") as one,
        site.node("two", now=now, url=through(way, site)) as two,
    ):
        await one.enqueue(files(1))
        [entry] = await one.claim(want())
        await stay(two, now, LEASE)
        way.cut()
        now.now += 10 * LEASE
        site.expire("one")
        assert (await two.beat()).over == ()
        assert (await one.beat()).holds, "it is back"
        assert await one.uploaded(entry.id, RECEIPT)
        site.expire("one")
        await stay(two, now, LEASE)
        assert site.ask("SELECT lease_until FROM nodes WHERE name = 'one'") == "0", "by now it had the time"


def through(way: Proxy, site: Site) -> str:
    return site.server.url(site.url.rpartition("/")[2], port=way.port)


async def test_what_was_committed_without_an_answer_is_done_once(site: Site) -> None:
    """The connection breaks after each commit: what was done counts as done, and nothing is done twice."""
    left = [0]

    def lose(data: bytes) -> Loss | None:
        if b"COMMIT" not in data or not left[0]:
            return None
        left[0] -= 1
        return Loss.ANSWER

    async with proxied(site.server.port) as way, site.node("one", url=through(way, site)) as one:
        way.lose = lose

        async def lost(work: Any) -> Any:
            left[0] = 1
            before = len(site.waits)
            result = await work
            assert (left[0], len(site.waits)) == (0, before + 1)
            return result

        notice = Notice("orders", "file.delivered", "event-1", "{}", "one")
        await lost(one.enqueue(files(5)))
        sent, refused, failing, gone, _ = entries = await lost(one.claim(want()))
        assert len(entries) == 5
        assert await lost(one.granted(sent.id, GRANT))
        assert await lost(one.uploaded(sent.id, RECEIPT, target="t", notice=notice))
        assert await lost(one.archived(Closing(sent.id, "/archive/0.csv")))
        assert await lost(one.rejected(refused.id, REFUSED, notice))
        await lost(one.failed(Failure(failing.id, ERROR, site.clock.ms + 5, keep_grant=True)))
        await lost(one.gone(gone.id))
        other = await lost(one.refuse(version("bad.csv"), REFUSED))
        assert (await lost(one.beat())).holds
    assert site.ask("SELECT count(*), max(attempts) FROM files") == "6|1"
    assert site.ask("SELECT path, state FROM files ORDER BY id").split() == [
        *("0.csv|archived", "1.csv|rejected", "2.csv|queued", "3.csv|gone", "4.csv|queued", "bad.csv|rejected")
    ]
    assert site.ask(f"SELECT path FROM files WHERE id = {other}") == "bad.csv"  # noqa: S608 - a number
    assert site.ask("SELECT count(*) FROM outbox") == "2"


@pytest.mark.parametrize("state", ["40001", "40P01", "23505"])
async def test_what_others_came_in_between_is_done_again_at_once(site: Site, state: str) -> None:
    """A deadlock, a failed serialization and a row of the same key are nobody's trouble: no wait, nothing told."""
    async with site.node("one") as one:
        await stay(one, Steady(), 0)
        site.ask("CREATE SEQUENCE tries")
        trouble(site, state, "nextval('tries') <= 2")
        session = site.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'tablefeed one'")
        assert await one.enqueue(files(1)) == 1
        assert site.waits == []
        assert site.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'tablefeed one'") == session


@pytest.mark.parametrize("state", ["53100", "53200", "53300", "57P01", "57014", "55P03", "58030", "25006", "42501"])
async def test_what_passes_is_waited_for(site: Site, state: str) -> None:
    """A full disk, a server that stops, a lock that is not given, a right that was taken away: all is done in the end.

    By SQLSTATE, of table A of PostgreSQL's error codes.
    """
    async with site.node("one") as one:
        site.ask("CREATE SEQUENCE tries")
        trouble(site, state, "nextval('tries') <= 2")
        assert await one.enqueue(files(1)) == 1
        assert site.waits == [0.5, 1.0]
        assert one.trouble == ""


def trouble(site: Site, state: str, when: str) -> None:
    """Let the database refuse to take new files."""
    raising = f"RAISE EXCEPTION 'it is so' USING ERRCODE = '{state}'"
    body = f"BEGIN IF {when} THEN {raising}; END IF; RETURN NEW; END"
    site.ask(f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS '{body.replace(chr(39), chr(39) * 2)}'")
    site.ask("CREATE TRIGGER trouble BEFORE INSERT ON files FOR EACH ROW EXECUTE FUNCTION trouble()")


async def test_who_was_let_in_once_outlasts_a_refusal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that is wrong for a while keeps what was sent waiting; at a start it would end the daemon."""
    site.ask("CREATE ROLE changing SUPERUSER LOGIN PASSWORD 'first-password'")
    url = site.server.url(site.url.rpartition("/")[2], user="changing", password="first-password")
    async with site.node("one", url=url) as one:
        site.ask("ALTER ROLE changing PASSWORD 'second-password'")
        site.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tablefeed one'")
        queued = asyncio.create_task(one.enqueue(files(1)))
        await until(lambda: len(site.waits) >= 3)
        assert 'password authentication failed for user "changing"' in one.trouble
        assert "Write the right password" in one.trouble
        with pytest.raises(LedgerUnusable) as refused:
            async with site.node("two", url=url):
                pass
        assert refused.value.exit_code == Exit.NO_PERMISSION
        site.ask("ALTER ROLE changing PASSWORD 'first-password'")
        assert await queued == 1
    site.ask("DROP ROLE changing")


async def test_the_sender_is_who_delivered_and_not_who_moved(site: Site) -> None:
    """Nor one whose lease was over when it told of its delivery."""
    now = Steady()
    async with site.node("one") as one, site.node("two", now=now) as two:
        await one.enqueue(files(2))
        moves, late = await one.claim(want())
        assert await one.uploaded(moves.id, RECEIPT)
        await taken_over(site, "one", two, now)
        assert not await one.uploaded(late.id, RECEIPT)
        assert {entry.id for entry in await two.claim(want())} == {moves.id, late.id}
        assert await two.uploaded(late.id, RECEIPT)
        for entry in (moves, late):
            assert await two.archived(Closing(entry.id))
    assert site.ask("SELECT state, sender FROM files ORDER BY id") == "archived|one\narchived|two"


async def test_strict_feeds_are_in_order_across_nodes(site: Site) -> None:
    """One file at a time, the first of all, whichever node asks."""
    order = []
    async with site.node("one") as one, site.node("two") as two:
        await one.enqueue(files(4)[::-1])
        for number in range(4):
            mine, other = (one, two) if number % 2 else (two, one)
            [entry] = await mine.claim(want(strict=True))
            order.append(entry.version.path)
            assert await other.claim(want(strict=True)) == []
            assert await mine.uploaded(entry.id, RECEIPT)
            assert await other.claim(want(strict=True)) == [], "it is not archived yet"
            assert await mine.archived(Closing(entry.id))
    assert order == [f"{number}.csv" for number in range(4)]


async def test_strict_nodes_that_ask_at_once_get_one_file(site: Site) -> None:
    """However the two come in each other's way."""
    async with site.node("one") as one, site.node("two") as two:
        await one.enqueue(files(10))
        for number in range(10):
            found = await asyncio.gather(*(node.claim(want(strict=True)) for node in (one, two)))
            [(node, entry)] = [(node, entry) for node, got in zip((one, two), found, strict=True) for entry in got]
            assert entry.version.path == f"{number}.csv"
            await node.gone(entry.id)


async def test_a_feeds_limit_counts_for_all_nodes(site: Site) -> None:
    """What one holds, another may not claim, until it has ended."""
    async with site.node("one") as one, site.node("two") as two:
        await one.enqueue(files(9))
        first = await one.claim(want(2, most=3))
        second = await two.claim(want(9, most=3))
        assert (len(first), len(second)) == (2, 1)
        assert await one.claim(want(9, most=3)) == []
        await one.put_back(first[0].id)
        assert len(await two.claim(want(9, most=3))) == 1


async def test_files_are_claimed_by_one_node_alone(site: Site) -> None:
    """Two that ask again and again at the same time get all files between them, and none twice."""
    async with site.node("one") as one, site.node("two") as two:
        await one.enqueue(files(300))

        async def claim_all(ledger: Ledger) -> list[int]:
            found: list[Entry] = []
            while entries := await ledger.claim(want(7)):
                found += entries
            return [entry.id for entry in found]

        mine, theirs = await asyncio.gather(claim_all(one), claim_all(two))
        assert len({*mine, *theirs}) == len(mine) + len(theirs) == 300
        assert mine
        assert theirs


async def test_nodes_with_directories_of_their_own_do_not_meet(site: Site) -> None:
    """Two feeds of one name, with files of the same names: each node has its own queue, history and remains."""
    async with site.node("one", shared=False) as one, site.node("two", shared=False) as two:
        assert (await one.enqueue(files(3)), await two.enqueue(files(3))) == (3, 3)
        assert (await one.unknown(files(3)), await two.unknown(files(4))) == ([], files(4)[3:])
        mine = await one.claim(want())
        assert len(mine) == 3
        assert await two.counts() == {("orders", State.QUEUED): 3}
        assert await two.feeds_due(0, site.clock.ms) == ["orders"]
        for entry in mine:
            await one.uploaded(entry.id, RECEIPT)
            await one.archived(Closing(entry.id, f"/archive/{entry.version.path}"))
        await one.refuse(version("bad.csv"), REFUSED)
        assert await one.counts() == {}
        assert await two.rejected_in_place("orders", 10) == []
        assert len(await one.rejected_in_place("orders", 10)) == 1
        site.clock.now += 10
        assert await two.archived_before("orders", site.clock.ms, (0, 0), 10) == []
        assert len(await one.archived_before("orders", site.clock.ms, (0, 0), 10)) == 3
        assert await two.left_before(site.clock.ms, (0, 0), 10) == []
        assert len(await one.left_before(site.clock.ms, (0, 0), 10)) == 1
        assert await two.purge(Purge(site.clock.ms, 100)) == 0
        assert await one.purge(Purge(site.clock.ms, 100)) == 3
        assert {entry.version.path for entry in await two.claim(want())} == {"0.csv", "1.csv", "2.csv"}


async def test_a_path_is_queued_and_refused_up_to_what_an_index_takes(site: Site) -> None:
    """Whatever it consists of: bytes that are no UTF-8 take four each as they are stored, and nothing is compressed."""
    sign = Random(1)
    for shared in (True, False):
        async with site.node("one", shared=shared) as one:
            holds = one.can_hold("orders")
            assert holds is not None
            for signs in (ascii_letters + digits, [chr(0xDC80 + byte) for byte in range(128)], "\\\x01€äß"):
                path = "".join(sign.choices(signs, k=4_000))
                longest = bisect_left(range(4_000), True, key=lambda length: not holds(path[:length])) - 1
                assert 600 < longest < 2_600
                assert await one.enqueue([version(path[:longest])]) == 1
                await one.refuse(version(path[: longest - 1]), REFUSED)


async def test_a_dead_nodes_own_files_wait_for_it(site: Site) -> None:
    """Nobody else can read them; their grants are kept."""
    now = Steady()
    async with site.node("two", now=now, shared=False) as two:
        async with site.node("one", shared=False) as one:
            await one.enqueue(files(1))
            [entry] = await one.claim(want())
            await one.granted(entry.id, GRANT)
            await taken_over(site, "one", two, now)
            assert await two.claim(want()) == []
            one.give_up(entry.id)
        async with site.node("one", shared=False) as again:
            [entry] = await again.claim(want())
            assert entry.grant == GRANT


async def test_open_files_follow_when_a_directory_becomes_shared_and_back(site: Site) -> None:
    """What waits in the queue is everybody's then, unless another has the same file; and one node's again."""
    async with site.node("one", shared=False) as one, site.node("two", shared=True) as two:
        await two.enqueue(files(1))
        await one.enqueue(files(2))
        assert site.ask("SELECT node, path FROM files ORDER BY id").split() == ["|0.csv", "one|0.csv", "one|1.csv"]
        await one.know(["orders"], ["orders"])
        assert site.ask("SELECT node, path FROM files ORDER BY id").split() == ["|0.csv", "one|0.csv", "|1.csv"]
        await two.know(["orders"])
        assert site.ask("SELECT node, path FROM files ORDER BY id").split() == ["two|0.csv", "one|0.csv", "two|1.csv"]
        assert len(await two.claim(want())) == 2


async def test_a_file_that_another_queues_in_the_same_moment_ends_no_node(site: Site) -> None:
    """Whoever makes its directory a shared one waits for that commit, and finds the file to be everybody's."""
    async with site.node("one", shared=False) as one, site.node("two", shared=True):
        await one.enqueue(files(2))
        with psycopg.connect(site.url.replace("+psycopg", ""), autocommit=True) as other, other.transaction():
            everybodys = """SELECT (jsonb_populate_record(files, '{"id": 99, "node": ""}')).* FROM files"""
            other.execute(f"INSERT INTO files {everybodys} WHERE path = '0.csv'")
            knowing = asyncio.create_task(one.know(["orders"], ["orders"]))
            await until(lambda: site.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))
        await knowing
        assert site.ask("SELECT node, path, state FROM files ORDER BY path, node").split() == [
            *("|0.csv|queued", "one|0.csv|gone", "|1.csv|queued")
        ]


async def test_what_a_node_works_on_stays_everybodys_where_another_does_not_share_it(site: Site) -> None:
    """Those that share the directory would else take the file for a new one, and send it a second time."""
    async with site.node("one") as one, site.node("two", shared=False) as two:
        await one.enqueue(files(3))
        taken = await one.claim(want(2))
        await two.know(["orders"])
        open_ones = "SELECT node, path FROM files ORDER BY id"
        assert site.ask(open_ones).split() == ["|0.csv", "|1.csv", "two|2.csv"]
        assert await one.enqueue([entry.version for entry in taken]) == 0
        await one.know(["orders"])
        assert site.ask(open_ones).split() == ["one|0.csv", "one|1.csv", "two|2.csv"], "its own work follows it"


async def test_a_file_that_another_has_queued_is_open_once_when_its_directory_becomes_shared(site: Site) -> None:
    """The row that nobody would claim any more ends without its grant: as gone, or as archived where it was sent."""
    async with site.node("one", shared=False) as one, site.node("two", shared=True) as two:
        await one.enqueue(files(3))
        entries = await one.claim(want())
        for entry in entries:
            await one.granted(entry.id, GRANT)
        assert await one.uploaded(entries[1].id, RECEIPT)
        for entry in entries[1:]:
            await one.failed(Failure(entry.id, ERROR, site.clock.ms, keep_grant=True))
        await two.enqueue(files(3))
        await one.know(["orders"], ["orders"])
        told = "SELECT path, state, closed_at > 0, grant_url IS NULL FROM files WHERE node = 'one' ORDER BY id"
        assert site.ask(told).split() == ["0.csv|uploading||f", "1.csv|archived|t|t", "2.csv|gone|t|t"], "one is held"
        assert len(await two.claim(want())) == 3


async def test_what_a_node_that_is_over_was_to_tell_is_told_by_another(site: Site) -> None:
    """Of shared feeds, also where it ended in good order and its name does not come back; of its own it waits."""
    now = Steady()
    notices = [Notice(feed, "file.delivered", f"id-{feed}", "{}", "two") for feed in ("orders", "own")]
    async with site.node("one", now=now) as one:
        await one.know(["orders", "own"], ["orders"])
        async with site.node("two") as two:
            await two.know(["orders", "own"], ["orders"])
            for notice in notices:
                await two.set_paused(notice.feed, 5, notice)
            await stay(one, now, LEASE)
            assert (await one.beat()).letters == 0, "it lives"
        assert (await one.beat()).letters == 1
        found = await one.outbox.waiting(site.clock.ms + 1000, ["orders", "own"], 10)
        assert [letter.notice.id for letter in found.letters] == ["id-orders"]
    assert site.ask("SELECT node FROM outbox WHERE feed = 'own'") == "two"


async def test_what_webhooks_are_to_be_told_stays_where_no_other_node_tells_them(site: Site) -> None:
    """A node without the feed's webhook would take it for what nobody wants any more, and drop it."""
    now = Steady()
    notice = Notice("orders", "file.delivered", "id-1", "{}", "two")
    async with site.node("one", now=now) as one:
        await one.know(["orders"], ["orders"], [])
        async with site.node("two") as two:
            await two.set_paused("orders", 5, notice)
        await stay(one, now, LEASE)
        assert (await one.beat()).letters == 0
    assert site.ask("SELECT node FROM outbox") == "two"


def test_nodes_with_long_names_have_connections_of_their_own() -> None:
    """PostgreSQL cuts off what is longer than 63 bytes, and pods of a Deployment differ in their last letters alone."""
    names = [postgres.session_name(f"{'plant' * 11}-{end}") for end in ("k2x9q", "k2x9r")]
    assert len({*names}) == 2
    assert {len(name) for name in names} == {63}
    assert postgres.session_name("north") == "tablefeed north"


async def test_what_a_new_server_still_takes_for_under_way_is_claimed_again(site: Site) -> None:
    """It lacks the last moments of the one before, in which a file was let go of; what is sent now goes on."""
    async with proxied(site.server.port) as way, site.node("one", url=through(way, site)) as one:
        await one.enqueue(files(2))
        [entry, sent] = await one.claim(want())
        before = site.ask("SELECT state, owner FROM files WHERE path = '0.csv'")
        await one.failed(Failure(entry.id, ERROR, site.clock.ms, keep_grant=True))
        way.cut()
        state, owner = before.split("|")
        site.ask(f"UPDATE files SET state = '{state}', owner = '{owner}' WHERE path = '0.csv'")  # noqa: S608
        assert [again.id for again in await one.claim(want())] == [entry.id]
        assert await one.claim(want()) == []
        assert await one.uploaded(sent.id, RECEIPT)


async def test_an_epoch_that_a_new_server_does_not_know_is_not_given_out_again(site: Site) -> None:
    """Who works on what it held in that epoch does not take it for its own."""
    async with site.node("one") as one:
        await one.enqueue(files(1))
        [entry] = await one.claim(want())
        site.ask("DELETE FROM nodes")
        assert not (await one.beat()).holds
        assert not one.is_ours(entry.id)
        assert not one.holds(entry.id)


async def until_it_may_scan(ledger: Ledger) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await ledger.may_scan("orders"):
            await asyncio.sleep(0)


async def test_one_node_scans_until_it_ends_or_is_over(site: Site) -> None:
    """The next that asks has it then, and the one that had it is told so."""
    now = Steady()
    async with site.node("two", now=now) as two:
        async with site.node("one") as one:
            assert await one.may_scan("orders")
            assert not await two.may_scan("orders")
            assert await one.may_scan("orders"), "again and again"
            assert (one.scans("orders"), two.scans("orders")) == (True, False)
        await until_it_may_scan(two)  # the server needs a moment to see that a connection has ended
        async with site.node("three", now=(other := Steady())) as three:
            assert not await three.may_scan("orders")
            await taken_over(site, "two", three, other)
            await until_it_may_scan(three)
            assert not (await two.beat()).holds
            assert not two.scans("orders")
            assert not await two.may_scan("orders")


async def test_a_node_that_cannot_scan_lets_another_do_it(site: Site) -> None:
    """It may do so again when nobody else does; of a directory of its own it is told that there is no other."""
    async with site.node("one") as one, site.node("two") as two, site.node("three", shared=False) as three:
        assert await one.may_scan("orders")
        assert await one.leave_scan("orders")
        assert not one.scans("orders")
        assert await two.may_scan("orders")
        assert not await one.may_scan("orders")
        assert await one.leave_scan("orders")
        assert two.scans("orders")
        assert not await three.leave_scan("orders")


@pytest.mark.parametrize("served", [[], ["orders"]], ids=["removed", "its own"])
async def test_a_feed_that_is_shared_no_more_is_left_to_those_that_share_it(site: Site, served: list[str]) -> None:
    """Also where the scan that goes on until the reload is done asks once more."""
    async with site.node("one") as one, site.node("two") as two:
        assert await one.may_scan("orders")
        assert not await two.may_scan("orders")
        await one.know(served)
        await one.may_scan("orders")
        assert not one.scans("orders")
        assert await two.may_scan("orders")


async def test_a_directory_of_ones_own_is_scanned_whoever_else_does(site: Site) -> None:
    """There is nobody to ask."""
    async with site.node("one", shared=False) as one, site.node("two", shared=False) as two:
        assert await one.may_scan("orders")
        assert await two.may_scan("orders")


async def test_a_name_is_one_daemons(site: Site) -> None:
    """A second is refused in words that name it, disturbs nothing, and is welcome when the first has ended."""
    async with site.node("one") as one:
        with pytest.raises(LedgerUnusable, match=r"a daemon called one uses the ledger .* as number 1") as refused:
            async with site.node("one"):
                pass
        assert refused.value.exit_code == Exit.CANNOT_CREATE
        assert "[fleet] node" in refused.value.remedy
        assert await one.enqueue(files(1)) == 1
        assert (await one.beat()).holds
    async with site.node("one") as again:
        assert (await again.beat()).nodes[0].epoch == 2


async def test_a_daemon_whose_name_was_taken_while_it_was_cut_off_ends(site: Site) -> None:
    """Two with one name would not know who holds what."""
    async with proxied(site.server.port) as way, site.node("one", url=through(way, site)) as one:
        way.lose = lambda _: Loss.REQUEST
        queued = asyncio.create_task(one.enqueue(files(1)))
        await until(lambda: site.waits)
        async with site.node("one"):
            way.lose = lambda _: None
            with pytest.raises(LedgerUnusable, match="a daemon called one uses the ledger"):
                await queued


async def test_a_connection_that_the_server_takes_for_alive_is_ended_by_its_node(site: Site) -> None:
    """It keeps the node's name, so that the node could not come back; a number that is another's by now is not."""
    with engine.make_engine(site.url).connect() as connection, engine.make_engine(site.url).connect() as other:
        mine = postgres.session_of(other)
        assert not postgres.end_session(connection, postgres.Session(mine.number, "2001-01-01 00:00:00+00"))
        assert other.execute(sa.text("SELECT 1")).scalar_one() == 1
        other.rollback()
        assert postgres.end_session(connection, mine)
        with pytest.raises(sa.exc.OperationalError):
            other.execute(sa.text("SELECT 1"))


async def test_two_nodes_make_the_tables_once(site: Site) -> None:
    """Both start on an empty database: one makes them, the other waits."""
    empty = site.server.empty_database()
    async with asyncio.timeout(PATIENCE):
        nodes = [joined(empty, name) for name in ("one", "two", "three")]
        ledgers = await asyncio.gather(*(node.__aenter__() for node in nodes))
        assert await ledgers[0].enqueue([version()]) == 1
        assert await ledgers[1].counts() == {("orders", State.QUEUED): 1}
        for node in nodes:
            await node.__aexit__(None, None, None)


async def test_a_server_that_gives_no_answer_is_told_and_let_go(site: Site) -> None:
    """Where nothing comes and nothing breaks, the node does not wait for ever: it says so, and connects anew."""
    async with (
        proxied(site.server.port) as way,
        joined(through(way, site), "one", site.clock, lease=0.5) as one,
    ):
        way.stop()
        beating = asyncio.create_task(one.beat())
        await until(lambda: one.trouble)
        assert "PostgreSQL" in one.trouble
        way.go_on()
        assert (await beating).holds


async def test_a_node_leaves_also_where_its_connection_was_ended_meanwhile(site: Site) -> None:
    """Nobody then waits for its lease."""
    async with site.node("one") as one:
        await one.enqueue(files(1))
        [_] = await one.claim(want())
        site.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tablefeed one'")
    assert site.ask("SELECT lease_until FROM nodes") == "0"
    assert site.ask("SELECT state, owner FROM files") == "queued|"


async def test_what_ends_is_recorded_also_on_a_new_connection(site: Site) -> None:
    """Whatever is recorded in the moment in which the connection ends is recorded once, as it is."""
    async with site.node("one") as one:
        await one.enqueue(files(5))
        moved, refused, failing, gone, _ = await one.claim(want())
        assert await one.uploaded(moved.id, RECEIPT)
        for work in (
            lambda: one.archived(Closing(moved.id)),
            lambda: one.rejected(refused.id, REFUSED),
            lambda: one.failed(Failure(failing.id, ERROR, site.clock.ms + 5, keep_grant=True)),
            lambda: one.gone(gone.id),
        ):
            site.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tablefeed one'")
            assert await work() in (True, None)
        assert site.ask("SELECT state, attempts FROM files ORDER BY id").split() == [
            *("archived|0", "rejected|0", "queued|1", "gone|0", "uploading|0")
        ]


async def test_a_clock_that_is_set_ahead_ends_no_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's, or that of a server that takes over: nodes that live are left the time to say so."""
    now = Steady()
    async with site.node("one", now=now) as one, site.node("two") as two:
        await two.enqueue(files(1))
        [entry] = await two.claim(want())
        await stay(one, now, LEASE)
        await two.beat()
        monkeypatch.setattr(nodes, "NOW", nodes.NOW + 2 * 3_600_000)
        assert (await one.beat()).over == ()
        assert (await two.beat()).holds
        await stay(one, now, LEASE)
        assert (await two.beat()).holds
        assert await two.uploaded(entry.id, RECEIPT)


async def test_a_clock_that_is_set_back_leaves_no_node_its_lease(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead one is over as soon as it would have been, and not only when the clock has come so far again."""
    now, ahead = Steady(), nodes.NOW + 2 * 3_600_000
    async with site.node("one", now=now) as one:
        with monkeypatch.context() as before:
            before.setattr(nodes, "NOW", ahead)
            async with site.node("two") as two:
                await two.beat()
                await one.beat()
                before.undo()
                await stay(one, now, LEASE)
                lease = "SELECT lease_until - seen_at, seen_at < extract(epoch from now()) * 1000 FROM nodes"
                assert site.ask(f"{lease} WHERE name = 'two'") == f"{LEASE * 1000:.0f}|t"
                assert (await two.beat()).holds


@pytest.mark.parametrize("order", [("/failed/0.csv", None), (None, "/failed/0.csv")])
async def test_where_a_refused_file_lies_is_known_whoever_moved_it(site: Site, order: tuple[str | None, ...]) -> None:
    """Two nodes may move it at the same time: the one that found it taken does not write over what the other has."""
    async with site.node("one") as one, site.node("two") as two:
        entry_id = await one.refuse(version(), REFUSED)
        for node, destination in zip((one, two), order, strict=True):
            await node.set_aside(Closing(entry_id, destination))
    assert site.ask("SELECT destination, left_in_place FROM files") == "/failed/0.csv|f"


async def test_that_no_files_arrive_is_told_by_one_node(site: Site) -> None:
    """All that serve the feed find it in the same moment; when it is over and begins again, it is told again."""
    async with site.node("one") as one, site.node("two") as two:
        for moment, told in ((5, 1), (None, 1), (9, 2)):
            for node in (one, two):
                notice = Notice("orders", "feed.stale", "id", "{}", node.node) if moment else None
                await node.set_stale("orders", moment, notice)
            assert site.ask("SELECT count(*) FROM outbox") == str(told)
            assert site.ask("SELECT stale_at FROM feeds") == (str(moment) if moment else "")


async def test_feeds_of_one_name_are_known_node_by_node(site: Site) -> None:
    """Forty plants have an export of the same name: the one that stops is missed, whatever the others deliver."""
    async with site.node("one", shared=False) as one, site.node("two", shared=False) as two:
        began = site.clock.ms
        site.clock.now += 60
        await one.enqueue(files(2))
        [entry, _] = await one.claim(want())
        await one.uploaded(entry.id, RECEIPT)
        site.clock.now += 60
        await two.refuse(version("bad.csv"), REFUSED)
        [here], [there] = await one.feed_records(), await two.feed_records()
        assert (here.arrived_at, here.delivered_at) == (began + 60_000, began + 60_000)
        assert (there.arrived_at, there.delivered_at) == (began + 120_000, None)
        for node in (one, two):
            await node.set_stale("orders", 5, Notice("orders", "feed.stale", node.node, "{}", node.node))
            notice = Notice("orders", "feed.paused", node.node, "{}", node.node)
            await node.outbox.announce("orders", "delivery", notice)
        assert site.ask("SELECT event, node FROM outbox ORDER BY 1, 2").split() == [
            *("feed.paused|one", "feed.paused|two", "feed.stale|one", "feed.stale|two"),
        ]
        await one.outbox.withdraw("orders", "delivery", None)
        assert (await one.outbox.announced(), await two.outbox.announced()) == (set(), {("orders", "delivery")})


async def test_a_node_reads_what_is_known_of_its_own_feeds_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each does so once a minute, on the thread that commits, and a fleet has thousands of feeds."""
    read: list[FeedRecord] = []
    made = FeedRecord

    def noted(**values: Any) -> FeedRecord:
        read.append(made(**values))
        return read[-1]

    async with site.node("one", shared=False) as one, site.node("two", shared=False), site.node("three"):
        monkeypatch.setattr("tablefeed.ledger.feeds.FeedRecord", noted)
        assert [record.node for record in await one.feed_records()] == ["one"]
        assert {record.node for record in read} == {"", "one"}


async def test_a_feed_that_is_shared_from_now_on_is_known_once(site: Site) -> None:
    """What was told of it while it was this node's alone would else be shown for ever on nodes that do not serve it."""
    async with site.node("one", shared=False) as one, site.node("two", shared=False):
        await one.set_stale("orders", 5)
        await one.set_paused("orders", 7)
        await one.know(["orders"], ["orders"])
        assert site.ask("SELECT node, stale_at, paused_at FROM feeds ORDER BY 1").split() == ["||7", "two||7"]


async def test_what_is_known_of_the_feeds_of_a_node_goes_with_it(site: Site) -> None:
    """Pods have a new name each time. What somebody has paused, and a node that has yet to come, are not forgotten."""
    for name in ("pod-1", "pod-2"):
        async with site.node(name, shared=False) as pod:
            await pod.outbox.announce("orders", "delivery", None)
            await pod.set_paused("orders", 7 if name == "pod-2" else None)
    site.ask("UPDATE feeds SET paused_at = NULL WHERE node = 'pod-1'")
    site.ask("INSERT INTO feeds (name, node, known_at, arrived_at) VALUES ('orders', 'coming', 1, 9999999999999)")
    site.ask(f"UPDATE nodes SET seen_at = seen_at - {KEPT}")  # noqa: S608 - a number
    site.ask(f"UPDATE feeds SET known_at = known_at - {KEPT}")  # noqa: S608 - a number
    async with site.node("pod-3", shared=False) as pod:
        assert site.ask("SELECT node FROM feeds ORDER BY 1").split() == ["coming", "pod-2", "pod-3"]
        assert site.ask("SELECT node FROM announced") == "pod-2"
        assert await pod.paused() == {"orders": 7}


async def closed(ledger: Ledger, path: str, feed: str = "orders") -> None:
    """A file that is delivered and lies in the archive."""
    await ledger.enqueue([version(path, feed=feed)])
    [entry] = await ledger.claim([Want(feed, Order.NAME, 1)])
    await ledger.uploaded(entry.id, RECEIPT)
    await ledger.archived(Closing(entry.id, f"/archive/{path}"))


async def test_what_happened_on_a_node_that_is_known_no_more_is_forgotten_by_any(site: Site) -> None:
    """Its history and its old events would be kept for ever; a file that was left in its place would be sent again.

    While it is known, or has yet to come, nobody but itself knows what of it is needed.
    """
    for name in ("pod-1", "pod-2", "coming"):
        async with site.node(name, shared=False) as pod:
            await closed(pod, f"{name}.csv")
            await pod.refuse(version("left.csv"), REFUSED)
            await pod.outbox.announce("orders", "delivery", Notice("orders", "feed.paused", name, "{}", name))
    site.ask("DELETE FROM nodes WHERE name = 'coming'")
    site.ask(f"UPDATE nodes SET seen_at = seen_at - {KEPT} WHERE name = 'pod-1'")  # noqa: S608 - a number
    site.clock.now += KEPT / 1000
    site.ask("UPDATE feeds SET arrived_at = 9999999999999 WHERE node = 'coming'")
    bounds = Bounds(("orders",), site.clock.ms, 100, 100)
    async with site.node("pod-3") as pod:
        assert await pod.purge(Purge(site.clock.ms, 100, ("orders",))) == 1
        assert site.ask("SELECT path FROM files ORDER BY id").split() == [
            *("left.csv", "pod-2.csv", "left.csv", "coming.csv", "left.csv")
        ]
        assert await pod.outbox.bound(replace(bounds, since=bounds.since - KEPT)) == {}, "they are not old yet"
        assert await pod.outbox.bound(bounds) == {"orders": Dropped(forsaken=2)}
        assert site.ask("SELECT event_id FROM outbox") == "pod-2"


async def test_the_history_of_a_shared_feed_is_forgotten_by_those_that_serve_it(site: Site) -> None:
    """Only they know which archived files are still to be removed; where nobody serves it, any node does it."""
    async with site.node("one") as one, site.node("two", shared=False) as two:
        await one.know(["orders", "stock"], ["orders", "stock"])
        await two.know(["own"])
        await closed(one, "a.csv")
        await closed(one, "b.csv", "stock")
        site.clock.now += 10
        assert await two.purge(Purge(site.clock.ms, 100)) == 0
        assert await one.purge(Purge(site.clock.ms, 100, ("orders",))) == 1
        await one.know(["stock"], ["stock"])
        assert await two.purge(Purge(site.clock.ms, 100)) == 1


async def test_a_feed_that_is_new_on_a_node_is_paused_as_on_the_others(site: Site) -> None:
    """And one that is shared from now on, or not any more, has had the files that it had."""
    async with site.node("one", shared=False) as one, site.node("two", shared=False) as two:
        await one.enqueue(files(1))
        await one.set_paused("orders", 7)
        await one.know(["orders"], ["orders"])
        await two.know(["orders", "more"])
        [record] = await one.feed_records()
        assert (record.node, record.arrived_at, record.paused_at) == ("", site.clock.ms, 7)
        records = {record.name: record for record in await two.feed_records()}
        assert (records["orders"].arrived_at, records["orders"].paused_at) == (None, 7)
        assert records["more"].paused_at is None


@pytest.mark.parametrize("strict", [False, True])
async def test_a_clock_that_is_ahead_makes_no_file_wait(site: Site, strict: bool) -> None:
    """What one node queues and delivers, others send and move at once; what failed waits for its time."""
    async with site.node("one") as one, site.node("two") as two:
        site.clock.now += 7_200
        await one.enqueue(files(1))
        site.clock.now -= 7_200
        [entry] = await two.claim(want(strict=strict))
        site.clock.now += 7_200
        assert await two.uploaded(entry.id, RECEIPT)
        await two.put_back(entry.id)
        site.clock.now -= 7_200
        [entry] = await one.claim(want(strict=strict))
        await one.failed(Failure(entry.id, ERROR, site.clock.ms + 1_000, keep_grant=True))
        assert await two.claim(want(strict=strict)) == []


async def test_what_was_found_last_in_a_share_is_known_to_all(site: Site) -> None:
    """By which a node tells the share from the empty place where it is to be mounted."""
    async with site.node("one") as one, site.node("two") as two:
        assert await two.last_found("orders") is None
        await one.enqueue([replace(version(f"{inode}.csv", inode=inode), root=inode + 70) for inode in (7, 8)])
        found = await two.last_found("orders")
        assert found is not None
        assert (found.path, found.root) == ("8.csv", 78)
        assert await two.last_found("own") is None


async def test_claims_of_several_feeds_never_wait_for_each_other(site: Site) -> None:
    """Whatever the order of a node's turns, it holds no feed that another wants while it waits for an earlier one."""
    wants = [Want(feed, Order.NAME, 1, most=1) for feed in ("b", "a")]
    async with site.node("one") as one:
        await one.know(["a", "b"], ["a", "b"])
        with psycopg.connect(site.url.replace("+psycopg", ""), autocommit=True) as other, other.transaction():
            other.execute("SELECT pg_advisory_xact_lock(%s, %s)", (postgres._ORDER, postgres._number("/a")))
            claiming = asyncio.create_task(one.claim(wants))
            locks = "SELECT count(*) FILTER (WHERE NOT granted), count(*) FILTER (WHERE granted) FROM pg_locks"
            ours = f"{locks} WHERE locktype = 'advisory' AND classid = {postgres._ORDER}"
            while not (told := site.ask(ours)).startswith("1|"):
                await asyncio.sleep(0.01)
            assert told == "1|1", "the other's alone is granted"
        assert await claiming == []


async def test_what_happens_to_several_feeds_never_waits_for_each_other(site: Site) -> None:
    """Whatever comes together in one commit, it holds no feed that another's wants while it waits for an earlier one.

    So it is within one kind of change, and between kinds: files that come, and files that are delivered.
    """
    async with site.node("one") as one:
        await one.know(["a", "b"], ["a", "b"])
        await one.enqueue([version("0.csv", feed="b")])
        [entry] = await one.claim([Want("b", Order.NAME, 1)])
        with psycopg.connect(site.url.replace("+psycopg", ""), autocommit=True) as other:
            with other.transaction():
                other.execute("SELECT FROM feeds WHERE name = 'a' FOR UPDATE")
                delivering = asyncio.create_task(one.uploaded(entry.id, RECEIPT))
                coming = asyncio.create_task(one.enqueue([version("1.csv", feed=feed) for feed in ("b", "a")]))
                await until(lambda: site.ask("SELECT 1 FROM pg_locks WHERE NOT granted"))
                other.execute("SELECT FROM feeds WHERE name = 'b' FOR UPDATE NOWAIT")
            assert (await delivering, await coming) == (True, 2)
    assert site.ask("SELECT name FROM feeds WHERE arrived_at IS NOT NULL ORDER BY name").split() == ["a", "b"]
    assert site.ask("SELECT name FROM feeds WHERE delivered_at IS NOT NULL") == "b"
