import asyncio
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st

from support.ledgers import GRANT, RECEIPT, Clock, joined, migrations, opened, states, upgraded, version
from support.patience import PATIENCE
from tablefeed.errors import Exit, FileRefused, LedgerUnusable, Unreachable
from tablefeed.history import plain
from tablefeed.ledger import Closing, Failure, Ledger, Purge, Want, engine, records
from tablefeed.ledger import sqlite as sqlite_side
from tablefeed.ledger.schema import HEAD, FsPath, announced, feeds, files, metadata
from tablefeed.model import FileVersion, Order, State

T = TypeVar("T")
ONE = [Want("orders", Order.OLDEST, 1)]
MANY = [Want("orders", Order.OLDEST, 1000)]
ERROR = Unreachable("https://s.example", "refused")
REFUSED = FileRefused("a.csv", "too large", "Split it")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    """An empty one of each kind."""
    if request.param == "sqlite":
        async with opened(tmp_path / "ledger.db", clock) as ledger:
            yield ledger
    else:
        async with joined(request.getfixturevalue("postgres").database(), clock=clock) as ledger:
            yield ledger


sqlite_alone = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)
"""For what is SQLite's own."""


async def deliver(ledger: Ledger, *, left_in_place: bool = False) -> None:
    [entry] = await ledger.claim(ONE)
    assert await ledger.uploaded(entry.id, RECEIPT)
    assert await ledger.archived(Closing(entry.id, None if left_in_place else "/archive/a.csv", left_in_place))


async def test_a_file_goes_through_its_states(ledger: Ledger) -> None:
    """Queued, claimed with its version, uploaded with its receipt, archived: each step is seen in the counts."""
    assert await ledger.enqueue([version()]) == 1
    assert await ledger.counts() == {("orders", State.QUEUED): 1}
    [entry] = await ledger.claim(ONE)
    assert (entry.version, entry.state, entry.attempts) == (version(), State.UPLOADING, 0)
    assert await ledger.claim(ONE) == []
    assert await ledger.granted(entry.id, GRANT)
    assert await ledger.uploaded(entry.id, RECEIPT)
    assert await ledger.counts() == {("orders", State.UPLOADED): 1}
    assert await ledger.claim(ONE) == [], "it is still ours until it is archived"
    assert await ledger.archived(Closing(entry.id, "/archive/a.csv"))
    assert await ledger.counts() == {}


async def test_who_sent_a_file_is_kept_where_there_is_a_fleet(ledger: Ledger) -> None:
    """With the receipt, and when nobody holds the row any more; a file that was not sent has no sender."""
    await ledger.enqueue([version("sent.csv"), version("same.csv"), version("refused.csv")])
    entries = {entry.version.path: entry.id for entry in await ledger.claim(MANY)}
    await ledger.uploaded(entries["sent.csv"], RECEIPT)
    await ledger.uploaded(entries["same.csv"], RECEIPT, duplicate_of=entries["sent.csv"])
    await ledger.rejected(entries["refused.csv"], REFUSED)
    for path in ("sent.csv", "same.csv"):
        await ledger.archived(Closing(entries[path], f"/archive/{path}"))
    with records.opened(ledger._url) as beside:
        found = {record.path: plain(record)["sender"] for record in beside.find(records.Search())}
    assert found == {"sent.csv": ledger.node or None, "same.csv": None, "refused.csv": None}


async def test_at_most_one_row_per_path_is_open(ledger: Ledger) -> None:
    """The same version queued again, in one batch or in two, changes nothing."""
    assert await ledger.enqueue([version(), version()]) == 1
    assert await ledger.enqueue([version()]) == 0
    assert len(await ledger.claim(MANY)) == 1


async def test_a_replaced_version_that_waits_is_gone_and_the_new_one_queued(ledger: Ledger) -> None:
    """The old bytes are no longer there to be sent."""
    await ledger.enqueue([version(size=1)])
    assert await ledger.enqueue([version(size=2)]) == 1
    [entry] = await ledger.claim(MANY)
    assert entry.version.size == 2


async def test_a_version_that_is_being_sent_is_not_disturbed(ledger: Ledger) -> None:
    """While a path is being sent or moved, another version of it waits for the next scan."""
    await ledger.enqueue([version(size=1)])
    [entry] = await ledger.claim(ONE)
    assert await ledger.enqueue([version(size=2)]) == 0
    await ledger.uploaded(entry.id, RECEIPT)
    assert await ledger.enqueue([version(size=2)]) == 0
    await ledger.archived(Closing(entry.id, "/archive/a.csv"))
    assert await ledger.enqueue([version(size=2)]) == 1


async def test_unknown_tells_new_from_open_and_from_left_in_place(ledger: Ledger) -> None:
    """A file that stays in its directory is not queued twice; one that was moved away and dropped again is."""
    assert await ledger.unknown([version()]) == [version()]
    await ledger.enqueue([version()])
    assert await ledger.unknown([version(), version("b.csv")]) == [version("b.csv")]
    assert await ledger.unknown([version(size=99)]) == [version(size=99)]
    await deliver(ledger)
    assert await ledger.unknown([version()]) == [version()]
    await ledger.enqueue([version()])
    await deliver(ledger, left_in_place=True)
    assert await ledger.unknown([version()]) == []
    assert await ledger.unknown([version(mtime_ns=6)]) == [version(mtime_ns=6)]


async def test_a_file_is_known_again_after_its_directory_was_mounted_anew(ledger: Ledger) -> None:
    """The device number changes with a mount (NFS, btrfs, device mapper); nothing is sent again for that."""
    elsewhere = replace(version(), device=99)
    await ledger.enqueue([version()])
    assert await ledger.unknown([elsewhere]) == []
    assert await ledger.enqueue([elsewhere]) == 0
    await deliver(ledger, left_in_place=True)
    assert await ledger.unknown([elsewhere]) == []


async def test_rows_are_claimed_in_the_order_of_the_feed(ledger: Ledger) -> None:
    """Oldest, newest and by name."""
    await ledger.enqueue([version("b", mtime_ns=1), version("c", mtime_ns=2), version("a", mtime_ns=3)])
    for order, expected in ((Order.OLDEST, "bca"), (Order.NEWEST, "acb"), (Order.NAME, "abc")):
        entries = await ledger.claim([Want("orders", order, 3)])
        assert "".join(entry.version.path for entry in entries) == expected
        for entry in entries:
            await ledger.failed(Failure(entry.id, ERROR, 0, keep_grant=True))


async def test_a_failed_row_waits_until_it_is_due_and_keeps_its_grant(ledger: Ledger, clock: Clock) -> None:
    """After an ambiguous failure the same grant serves the next try, so that no second object is made."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await ledger.granted(entry.id, GRANT)
    due = clock.ms + 5000
    await ledger.failed(Failure(entry.id, ERROR, due, keep_grant=True))
    assert await ledger.claim(ONE) == []
    assert await ledger.next_due(clock.ms) == due
    clock.now += 5
    assert await ledger.feeds_due(clock.ms - 5000, clock.ms) == ["orders"]
    [again] = await ledger.claim(ONE)
    assert (again.attempts, again.grant, again.failed_at) == (1, GRANT, clock.ms - 5000)
    await ledger.failed(Failure(entry.id, ERROR, 0, keep_grant=False))
    [third] = await ledger.claim(ONE)
    assert (third.attempts, third.grant) == (2, None)


async def test_the_next_daemon_finds_what_a_dead_one_held(tmp_path: Path) -> None:
    """At start `uploading` is queued again with its grant, and `uploaded` goes on to the archive without an upload."""
    path = tmp_path / "ledger.db"
    async with opened(path) as first:
        await first.enqueue([version("sent.csv"), version("half.csv", mtime_ns=9)])
        sent, half = await first.claim(MANY)
        await first.granted(half.id, GRANT)
        await first.uploaded(sent.id, RECEIPT)
        snapshot = tmp_path / "crashed.db"
        with sqlite3.connect(path) as source, sqlite3.connect(snapshot) as target:
            source.backup(target)
    async with opened(snapshot, owner="other") as second:
        entries = {entry.version.path: entry for entry in await second.claim(MANY)}
    assert entries["half.csv"].state is State.UPLOADING
    assert entries["half.csv"].grant == GRANT
    assert entries["sent.csv"].state is State.UPLOADED
    assert entries["sent.csv"].receipt == RECEIPT


async def test_closing_puts_back_what_is_still_held(tmp_path: Path) -> None:
    """A drained daemon leaves no row claimed."""
    async with opened(tmp_path / "ledger.db") as first:
        await first.enqueue([version()])
        assert len(await first.claim(ONE)) == 1
    async with opened(tmp_path / "ledger.db", owner="other") as second:
        assert await second.counts() == {("orders", State.QUEUED): 1}


async def test_a_rejected_file_is_known_until_it_is_moved(ledger: Ledger) -> None:
    """A file that cannot be set aside yet is neither sent again nor forgotten."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    assert await ledger.rejected(entry.id, REFUSED)
    assert await ledger.unknown([version()]) == []
    [(left, reason)] = await ledger.rejected_in_place("orders", 10)
    assert (left.id, reason) == (entry.id, str(REFUSED))
    assert await ledger.set_aside(Closing(entry.id, "/failed/a.csv"))
    assert await ledger.rejected_in_place("orders", 10) == []
    assert await ledger.unknown([version()]) == [version()]


async def test_a_file_refused_before_it_was_queued_is_recorded(ledger: Ledger) -> None:
    """Its row is closed from the start, and an older version that waited under its name is gone."""
    await ledger.enqueue([version(size=1)])
    await ledger.refuse(version(size=2), REFUSED)
    assert await ledger.counts() == {}
    assert await ledger.unknown([version(size=2)]) == []


async def test_a_late_transition_changes_nothing(ledger: Ledger) -> None:
    """Each names the state that it starts from."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await ledger.uploaded(entry.id, RECEIPT)
    assert not await ledger.uploaded(entry.id, RECEIPT)
    assert not await ledger.gone(entry.id)
    assert not await ledger.rejected(entry.id, REFUSED)
    assert not await ledger.granted(entry.id, GRANT)
    await ledger.archived(Closing(entry.id))
    assert not await ledger.archived(Closing(entry.id))


async def test_grants_are_forgotten_once_they_are_of_no_use(ledger: Ledger) -> None:
    """No signature outlives its file's delivery in the ledger's rows."""
    await ledger.enqueue([version("a"), version("b"), version("c")])
    entries = await ledger.claim(MANY)
    for entry in entries:
        await ledger.granted(entry.id, GRANT)
    await ledger.uploaded(entries[0].id, RECEIPT)
    await ledger.gone(entries[1].id)
    await ledger.rejected(entries[2].id, REFUSED)
    kept = sa.select(sa.func.count()).where(files.c.grant_url.is_not(None))
    assert await ledger._ask(lambda conn: conn.execute(kept).scalar_one()) == 0


async def test_concurrent_transitions_share_commits(ledger: Ledger, tmp_path: Path) -> None:
    """A thousand callers at once need far fewer transactions than callers, and each finds its change made."""
    commits = 0
    conn = ledger._conn

    def count(_: object) -> None:
        nonlocal commits
        commits += 1

    sa.event.listen(conn.engine, "commit", count)
    await asyncio.gather(*(ledger.enqueue([version(f"{n}.csv", inode=n)]) for n in range(1000)))
    assert commits <= 5
    entries = await ledger.claim(MANY)
    assert len(entries) == 1000
    assert all(await asyncio.gather(*(ledger.uploaded(entry.id, RECEIPT) for entry in entries)))
    assert commits <= 10


async def test_the_dataset_of_a_datatable_is_kept(ledger: Ledger) -> None:
    """Looked up once, it is there after a restart, and may be replaced."""
    assert await ledger.dataset_of("https://a", "t", "table") is None
    await ledger.keep_dataset("https://a", "t", "table", "d-1")
    await ledger.keep_dataset("https://a", "t", "table", "d-2")
    assert await ledger.dataset_of("https://a", "t", "table") == "d-2"


async def test_old_rows_are_purged_but_never_those_of_files_left_in_place(ledger: Ledger, clock: Clock) -> None:
    """Closed rows are kept for a while; a row that keeps a file from being sent twice stays."""
    await ledger.enqueue([version("a.csv")])
    await deliver(ledger)
    await ledger.enqueue([version("b.csv")])
    await deliver(ledger, left_in_place=True)
    await ledger.enqueue([version("c.csv")])
    clock.now += 100
    assert await ledger.purge(Purge(clock.ms, 10)) == 1
    assert await ledger.unknown([version("b.csv"), version("c.csv")]) == []


@given(st.binary(min_size=1, max_size=30).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"\\"))))
def test_any_file_name_survives_the_ledger(name: str) -> None:
    """Also one that is not UTF-8, that has backslashes or a newline."""
    kind = FsPath()
    stored = kind.process_bind_param(name, sa.engine.default.DefaultDialect())
    assert stored is not None
    stored.encode("utf-8")
    assert kind.process_result_value(stored, sa.engine.default.DefaultDialect()) == name


async def test_odd_names_come_back_from_the_database(ledger: Ledger) -> None:
    """Through real SQLite, in a claim and in a search by path."""
    names = [os.fsdecode(b"caf\xe9.csv"), "new\nline.csv", "back\\x41slash.csv", "日本.csv"]
    versions = [version(name, inode=n) for n, name in enumerate(names)]
    await ledger.enqueue(versions)
    assert await ledger.unknown(versions) == []
    assert {entry.version for entry in await ledger.claim(MANY)} == set(versions)


async def test_inodes_and_times_beyond_63_bits_can_be_stored(ledger: Ledger, tmp_path: Path) -> None:
    """Some file systems use all 64 bits, and an mtime can lie beyond the year 2262."""
    file = tmp_path / "f"
    file.touch()
    fields = list(os.stat(file))
    fields[1] = 2**64 - 3
    odd = version(inode=1).of("orders", "f", os.stat_result(fields, {"st_mtime_ns": 15 * 10**18, "st_ctime_ns": 5}))
    await ledger.enqueue([odd])
    assert await ledger.unknown([odd]) == []


@sqlite_alone
async def test_the_ledger_is_readable_by_its_owner_alone(ledger: Ledger, tmp_path: Path) -> None:
    """It holds grants while they are in use, so do its journal and its shared memory."""
    await ledger.enqueue([version()])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}


async def test_a_ledger_made_readable_by_others_is_closed_again(tmp_path: Path) -> None:
    """An operator's `chmod` does not stay."""
    async with opened(tmp_path / "ledger.db"):
        pass
    (tmp_path / "ledger.db").chmod(0o644)
    async with opened(tmp_path / "ledger.db"):
        assert stat.S_IMODE((tmp_path / "ledger.db").stat().st_mode) == 0o600


@sqlite_alone
async def test_a_second_daemon_is_kept_out_and_told_by_whom(ledger: Ledger, tmp_path: Path) -> None:
    """Two daemons on one ledger would send files twice."""
    with pytest.raises(LedgerUnusable, match=f"process {os.getpid()}") as caught:
        async with opened(tmp_path / "ledger.db"):
            pass
    assert caught.value.exit_code is Exit.CANNOT_CREATE


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_damaged_ledger_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    """One clear message, and the file is left as it was."""
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerUnusable, match="Move it aside") as caught:
        async with opened(path):
            pass
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


async def test_a_ledger_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    """An older program must not write into what it does not understand."""
    path = tmp_path / "ledger.db"
    async with opened(path):
        pass
    with sqlite3.connect(path) as raw:
        raw.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(LedgerUnusable, match="newer tablefeed"):
        async with opened(path):
            pass


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The message leads to `[ledger] url`."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerUnusable, match=r"\[ledger\] url"):
        async with opened(tmp_path / "file" / "ledger.db"):
            pass


async def test_migrations_make_what_the_statements_expect(ledger: Ledger) -> None:
    """The migrated schema equals the one in the code, and HEAD is the newest migration."""
    with ledger._conn.engine.connect() as conn:
        other = {"ix_files_held"} if conn.dialect.name == "sqlite" else set()
        options = {"include_object": lambda _, name, *__: name not in other}
        differences = compare_metadata(MigrationContext.configure(conn, opts=options), metadata)
    assert differences == []
    assert ScriptDirectory.from_config(migrations()).get_current_head() == HEAD


async def test_a_strict_claim_is_of_the_first_file_and_no_other(ledger: Ledger, clock: Clock) -> None:
    """While the first one waits for its next try, nothing behind it goes; once it is refused, the next one does."""
    strict = [Want("orders", Order.OLDEST, 1, strict=True)]
    await ledger.enqueue([version("b.csv", mtime_ns=2), version("a.csv", mtime_ns=1)])
    [first] = await ledger.claim(strict)
    assert first.version.path == "a.csv"
    await ledger.failed(Failure(first.id, ERROR, clock.ms + 1000, keep_grant=True))
    assert await ledger.claim(strict) == []
    clock.now += 1
    [again] = await ledger.claim(strict)
    assert again.id == first.id
    await ledger.rejected(again.id, REFUSED)
    [second] = await ledger.claim(strict)
    assert second.version.path == "b.csv"


async def test_a_strict_claim_does_not_wait_for_moves(ledger: Ledger, clock: Clock) -> None:
    """What is delivered holds nobody, whether it could be archived or not."""
    strict = [Want("orders", Order.OLDEST, 1, strict=True)]
    await ledger.enqueue([version("a.csv", mtime_ns=1), version("b.csv", mtime_ns=2)])
    [first] = await ledger.claim(strict)
    await ledger.uploaded(first.id, RECEIPT)
    await ledger.failed(Failure(first.id, ERROR, clock.ms + 1000, keep_grant=True))
    [second] = await ledger.claim(strict)
    assert second.version.path == "b.csv"


@pytest.mark.parametrize(
    ("order", "early", "late"),
    [
        (Order.OLDEST, version("z.csv", mtime_ns=3), version("z.csv", mtime_ns=9)),
        (Order.NEWEST, version("z.csv", mtime_ns=9), version("z.csv", mtime_ns=3)),
        (Order.NAME, version("a.csv"), version("z.csv")),
    ],
)
async def test_a_strict_claim_waits_for_a_file_that_is_not_whole_yet(
    ledger: Ledger, order: Order, early: FileVersion, late: FileVersion
) -> None:
    """What comes behind such a file in the feed's order is not sent before it; what comes before it is."""
    await ledger.enqueue([version("m.csv", mtime_ns=5)])
    assert await ledger.claim([Want("orders", order, 1, strict=True, ahead=early)]) == []
    assert len(await ledger.claim([Want("orders", order, 1, strict=True, ahead=late)])) == 1


async def test_content_that_was_delivered_is_found_by_size_and_md5_within_feed_and_target(ledger: Ledger) -> None:
    """Another feed, another datatable, another size or other bytes are news."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await ledger.uploaded(entry.id, RECEIPT, target="table-1")
    assert await ledger.has_delivered("orders", "table-1", 10)
    assert not await ledger.has_delivered("orders", "table-2", 10)
    assert not await ledger.has_delivered("other", "table-1", 10)
    assert not await ledger.has_delivered("orders", "table-1", 11)
    assert RECEIPT.md5
    found = await ledger.delivery_of("orders", "table-1", 10, RECEIPT.md5)
    assert found is not None
    assert (found.id, found.receipt) == (entry.id, RECEIPT)
    assert await ledger.delivery_of("orders", "table-1", 10, "1" * 32) is None
    assert await ledger.delivery_of("orders", "table-2", 10, RECEIPT.md5) is None


async def test_a_duplicate_ends_as_skipped_and_is_never_sent(tmp_path: Path) -> None:
    """It goes the way of a delivered file to the archive, also over a restart, and its row names the one it repeats."""
    async with opened(tmp_path / "ledger.db") as ledger:
        await ledger.enqueue([version("a.csv"), version("b.csv", mtime_ns=6)])
        first, second = await ledger.claim(MANY)
        await ledger.uploaded(first.id, RECEIPT, target="t")
        await ledger.archived(Closing(first.id, "/archive/a.csv"))
        await ledger.uploaded(second.id, RECEIPT, target="t", duplicate_of=first.id)
    async with opened(tmp_path / "ledger.db") as reopened_ledger:
        [entry] = await reopened_ledger.claim(MANY)
        assert (entry.state, entry.duplicate_of) == (State.UPLOADED, first.id)
        await reopened_ledger.archived(Closing(entry.id, "/archive/b.csv"))
    assert states(tmp_path / "ledger.db", "orders") == {"a.csv": "archived", "b.csv": "skipped"}


async def test_a_claim_that_was_not_tried_is_put_back_as_it_was(ledger: Ledger) -> None:
    """No attempt is counted, and the grant stays."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await ledger.granted(entry.id, GRANT)
    await ledger.put_back(entry.id)
    [again] = await ledger.claim(ONE)
    assert (again.id, again.attempts, again.grant) == (entry.id, 0, GRANT)


async def test_rows_whose_archived_file_is_yet_to_be_removed_are_not_purged(ledger: Ledger, clock: Clock) -> None:
    """Their row is all that tells where the file lies and how old it is."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await ledger.uploaded(entry.id, RECEIPT)
    await ledger.archived(Closing(entry.id, "/archive/a.csv"))
    clock.now += 100
    keeping = Purge(clock.ms, 10, ("orders",))
    assert await ledger.purge(keeping) == 0
    await ledger.removed(entry.id)
    assert await ledger.purge(keeping) == 1


async def test_what_waits_is_brought_forward_and_what_is_due_stays(ledger: Ledger, clock: Clock) -> None:
    """When the clock is set back by an hour, a wait of a second stays one of a second."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await ledger.failed(Failure(entry.id, ERROR, clock.ms + 1000, keep_grant=True))
    clock.now -= 3600
    await ledger.bring_forward(3_600_000)
    assert await ledger.claim(ONE) == []
    clock.now += 1
    assert len(await ledger.claim(ONE)) == 1


async def test_a_wait_that_a_wrong_clock_has_made_ends_with_the_next_start(tmp_path: Path) -> None:
    """Files that failed while the clock was years ahead are due; a wait as long as a server may ask for stays."""
    clock = Clock()
    async with opened(tmp_path / "ledger.db", clock) as ledger:
        clock.now += 10 * 365 * 86_400
        for path in ("ahead.csv", "asked.csv"):
            await ledger.enqueue([version(path)])
            [entry] = await ledger.claim(ONE)
            await ledger.failed(Failure(entry.id, ERROR, clock.ms + 3_000_000, keep_grant=True))
            clock.now = Clock().now
        assert await ledger.claim(MANY) == []
    async with opened(tmp_path / "ledger.db", clock) as ledger:
        assert [entry.version.path for entry in await ledger.claim(MANY)] == ["ahead.csv"]


@pytest.mark.parametrize("revision", ["0001", "0003", "0005"])
async def test_a_ledger_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, revision: str) -> None:
    """Its rows keep all they had, and those that wait for their move are found."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    upgraded(url, revision)
    with sa.create_engine(url).begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO files (feed, path, device, inode, size, mtime_ns, state, queued_at, due_at, attempts, "
                "left_in_place) VALUES ('orders', 'a.csv', 1, 1, 10, 5, 'queued', 7, 7, 2, 0),"
                "('orders', 'b.csv', 1, 1, 10, 5, 'uploaded', 8, 8, 0, 0)"
            )
        )
    connection.engine.dispose()
    async with opened(tmp_path / "ledger.db") as ledger:
        moved, entry = await ledger.claim(MANY)
    assert (entry.version, entry.queued_at, entry.attempts) == (version(), 7, 2)
    assert (moved.version, moved.state) == (version("b.csv"), State.UPLOADED)


def test_a_kill_while_a_ledger_is_brought_up_to_date_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it comes, the next start does it, and what somebody has paused stays paused."""
    path, again = tmp_path / "ledger.db", tmp_path / "again.db"
    upgraded(f"sqlite:///{path}", "0004")
    with sqlite3.connect(path) as raw:
        raw.execute("INSERT INTO feeds (name, known_at, paused_at) VALUES ('orders', 1, 7)")
    raw.close()
    left: set[tuple[bytes, bytes]] = set()
    set_up = sqlite_side.set_up

    def watched(connection: sa.Connection) -> None:
        set_up(connection)
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(lambda _: left.add((path.read_bytes(), journal(path).read_bytes())))

    def journal(of: Path) -> Path:
        return of.with_name(of.name + "-wal")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_side, "set_up", watched)
        engine.connect(f"sqlite:///{path}").close()
    for database, written in left:
        again.write_bytes(database)
        journal(again).write_bytes(written)
        engine.connect(f"sqlite:///{again}").close()
        with sqlite3.connect(again) as raw:
            assert raw.execute("SELECT name, paused_at FROM feeds").fetchall() == [("orders", 7)]
        raw.close()
    assert left


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_is_known_of_feeds_is_kept(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    """Also where their table is made anew."""
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        url = request.getfixturevalue("postgres").empty_database()
    upgraded(url, "0006")
    made = sa.create_engine(url)
    with made.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO feeds (name, known_at, arrived_at, delivered_at, paused_at, stale_at)"
                " VALUES ('orders', 1, 2, 3, 4, 5), ('other', 6, NULL, NULL, NULL, NULL)"
            )
        )
        connection.execute(sa.text("INSERT INTO announced (feed, place) VALUES ('orders', 'delivery')"))
    upgraded(url, HEAD)
    with made.connect() as connection:
        known = connection.execute(sa.select(feeds).order_by(feeds.c.name)).all()
        told = connection.execute(sa.select(announced)).all()
    made.dispose()
    assert known == [("orders", "", 1, 2, 3, 4, 5), ("other", "", 6, None, None, None, None)]
    assert told == [("orders", "delivery", "")]


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_no_row_is_written_for_the_column_of_senders(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    """A ledger with millions of rows is as quick to bring up to date as an empty one; old rows have no sender."""
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        url = request.getfixturevalue("postgres").empty_database()
    upgraded(url, "0005")
    made = sa.create_engine(url)

    def pages() -> list[object]:
        """What holds the rows: the pages of the file, or the number of the table's file and the writer of each row."""
        if kind == "sqlite":
            raw = (tmp_path / "ledger.db").read_bytes()
            return [raw[start : start + 4096] for start in range(0, len(raw), 4096)]
        with made.connect() as connection:
            return [*connection.execute(sa.text("SELECT pg_relation_filenode('files'), ctid, xmin::text FROM files"))]

    with made.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO files (feed, path, device, inode, size, mtime_ns, state, queued_at, due_at, attempts, "
                "left_in_place) VALUES ('orders', :path, 1, 1, 10, 5, 'archived', 7, 7, 0, false)"
            ),
            [{"path": f"{number}.csv"} for number in range(3_000)],
        )
    made.dispose()
    before = pages()
    upgraded(url, "0006")
    changed = sum(one != other for one, other in zip(before, pages(), strict=True))
    with made.connect() as connection:
        found = connection.execute(sa.select(files.c.sender, sa.func.count()).group_by(files.c.sender)).all()
    made.dispose()
    assert found == [(None, 3_000)]
    assert len(before) > 40
    assert changed <= (6 if kind == "sqlite" else 0), "the schema and its version, and no row"


async def on_its_thread(ledger: Ledger, do: Callable[[sqlite3.Connection], T]) -> T:
    """What `do` gives on the ledger's thread, with its real connection."""

    def run() -> T:
        raw = ledger._conn.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        return do(raw)

    return await asyncio.get_running_loop().run_in_executor(ledger._executor, run)


@sqlite_alone
@pytest.mark.parametrize("order", Order)
async def test_the_hot_queries_use_their_indexes(ledger: Ledger, tmp_path: Path, order: Order) -> None:
    """A claim, a lookup by path, a change of a row and a look for due rows never read the whole table, nor sort it."""
    statements: list[str] = []
    await on_its_thread(ledger, lambda raw: raw.set_trace_callback(statements.append))
    await ledger.know(["orders"])
    await ledger.enqueue([version(), version("b.csv")])
    await ledger.enqueue([version("b.csv", inode=9)])
    await ledger.unknown([version()])
    [entry] = await ledger.claim([Want("orders", order, 1)])
    await ledger.granted(entry.id, GRANT)
    await ledger.uploaded(entry.id, RECEIPT, target="t")
    await ledger.archived(Closing(entry.id, "/archive/a.csv"))
    await ledger.feeds_due(0, 1)
    await ledger.next_due(0)
    [other] = await ledger.claim([Want("orders", order, 1, strict=True)])
    await ledger.failed(Failure(other.id, ERROR, 0, keep_grant=False))
    await ledger.gone(other.id)
    await ledger.delivery_of("orders", "t", 10, "0" * 32)
    await ledger.archived_before("orders", 5, (0, 0), 10)
    await ledger.left_before(5, (0, 0), 10)
    await on_its_thread(ledger, lambda raw: raw.set_trace_callback(None))
    about_files = [text for text in statements if re.match(r"(WITH|SELECT).*FROM files|UPDATE files", text, re.DOTALL)]
    assert len(about_files) >= 15
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        for text in about_files:
            plan = " | ".join(row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + text))
            assert "SEARCH files USING" in plan, (text, plan)
            assert "SCAN files" not in plan, (text, plan)
            assert "TEMP B-TREE FOR ORDER" not in plan, (text, plan)


async def counting(ledger: Ledger) -> Callable[[], int]:
    """Gives the steps of SQLite's virtual machine since it was called last, which no other load disturbs."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def taken() -> int:
        nonlocal steps
        before, steps = steps, 0
        return before

    await on_its_thread(ledger, lambda raw: raw.set_progress_handler(step, 1))
    return taken


@sqlite_alone
@pytest.mark.parametrize("order", Order)
async def test_a_claim_costs_the_same_however_many_files_wait(ledger: Ledger, order: Order) -> None:
    """Those that are behind in the order are not looked at."""
    taken = await counting(ledger)

    async def cost() -> int:
        taken()
        assert len(await ledger.claim([Want("orders", order, 10)])) == 10
        return taken()

    await ledger.enqueue([version(f"{n:05}.csv", inode=n, mtime_ns=n) for n in range(5_000, 5_100)])
    among_few = await cost()
    await ledger.enqueue([version(f"{n:05}.csv", inode=n, mtime_ns=n) for n in [*range(4_000), *range(6_000, 9_000)]])
    assert 0 < await cost() <= 1.1 * among_few


@sqlite_alone
async def test_a_claim_costs_the_same_however_many_files_wait_for_their_move(ledger: Ledger, clock: Clock) -> None:
    """As on a night on which the archive's disk is full and files are delivered all the same."""
    taken = await counting(ledger)

    async def cost() -> int:
        taken()
        assert await ledger.claim(MANY) == []
        return taken()

    async def wait_for_moves(inodes: range) -> None:
        await ledger.enqueue([version(f"{n}.csv", inode=n) for n in inodes])
        entries = await ledger.claim([Want("orders", Order.OLDEST, len(inodes))])
        await asyncio.gather(*(ledger.uploaded(entry.id, RECEIPT) for entry in entries))
        later = clock.ms + 60_000
        failures = [Failure(entry.id, ERROR, later, keep_grant=False) for entry in entries]
        await asyncio.gather(*map(ledger.failed, failures))

    await wait_for_moves(range(10))
    among_few = await cost()
    await wait_for_moves(range(10, 2_000))
    assert 0 < await cost() <= 1.1 * among_few


async def pragma(ledger: Ledger, text: str) -> int:
    """The value of a pragma on the ledger's own connection, once it is set."""

    def run() -> int:
        value: int = ledger._conn.exec_driver_sql(f"PRAGMA {text}").scalar_one()
        ledger._conn.rollback()
        return value

    return await asyncio.get_running_loop().run_in_executor(ledger._executor, run)


async def fill_disk(ledger: Ledger) -> None:
    await pragma(ledger, f"max_page_count={await pragma(ledger, 'page_count')}")


async def free_disk(ledger: Ledger) -> None:
    await pragma(ledger, "max_page_count=1000000")


@pytest.mark.parametrize("moment", ["not begun", "in trouble"])
async def test_a_delivery_is_recorded_also_when_its_caller_gives_up_on_a_full_disk(tmp_path: Path, moment: str) -> None:
    """Cancelled before its first try or between two: it is tried until it is durable."""
    in_trouble, wait = asyncio.Event(), asyncio.Event()

    async def sleep(_: float) -> None:
        in_trouble.set()
        await wait.wait()

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", owner="me", clock=Clock(), sleep=sleep)
    await ledger.open()
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    await fill_disk(ledger)
    recording = asyncio.create_task(ledger.uploaded(entry.id, RECEIPT, target="t" * 100_000))
    await (asyncio.sleep(0) if moment == "not begun" else in_trouble.wait())
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    await in_trouble.wait()
    assert "full" in ledger.trouble
    await free_disk(ledger)
    wait.set()
    async with asyncio.timeout(PATIENCE):
        while await ledger.counts() != {("orders", State.UPLOADED): 1}:
            await asyncio.sleep(0)
    assert await ledger.archived(Closing(entry.id, "/archive/a.csv"))
    assert not ledger.trouble
    await ledger.close()


async def test_a_full_disk_makes_transitions_wait_and_loses_none(tmp_path: Path) -> None:
    """While the ledger cannot grow nothing is claimed done; when it can again all is durable."""
    waits = 0
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            enough.set()
        await asyncio.sleep(0)

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", owner="me", clock=Clock(), sleep=sleep)
    await ledger.open()
    await fill_disk(ledger)
    waiting = asyncio.create_task(ledger.enqueue([version(f"{n}.csv" * 20, inode=n) for n in range(500)]))
    await enough.wait()
    assert not waiting.done()
    assert "full" in ledger.trouble
    given_up = asyncio.create_task(ledger.know([f"feed-{n}" * 500 for n in range(500)]))
    enough.clear()
    waits = 0
    await enough.wait()
    given_up.cancel()
    await free_disk(ledger)
    assert await waiting == 500
    assert not ledger.trouble
    assert len(await ledger.claim(MANY)) == 500
    await ledger.close()


def test_a_commit_is_durable_when_its_caller_wakes(tmp_path: Path) -> None:
    """A process killed right after `enqueue` returned has its row in the ledger."""
    script = f"""
import asyncio, os, signal, sys
sys.path[:0] = {sys.path!r}
from support.ledgers import opened, version
async def main():
    async with opened({str(tmp_path / "ledger.db")!r}) as ledger:
        await ledger.enqueue([version()])
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script.replace("\n", "\n")], check=False).returncode == -9
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        assert raw.execute("select path, state from files").fetchall() == [("a.csv", "queued")]
        assert raw.execute("pragma journal_mode").fetchone() == ("wal",)


async def test_a_commit_waits_for_the_disk(ledger: Ledger) -> None:
    """What was committed outlasts a power cut: SQLite's `synchronous` is FULL, PostgreSQL's commits are not put off."""
    question, answer = ("PRAGMA synchronous", 2)
    if ledger._conn.dialect.name == "postgresql":
        question, answer = ("SHOW synchronous_commit", "on")  # type: ignore[assignment]
    assert await ledger._ask(lambda conn: conn.exec_driver_sql(question).scalar()) == answer


async def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """One clear line, not a bare OSError."""
    (tmp_path / "ledger.db.lock").mkdir()
    with pytest.raises(LedgerUnusable, match=r"ledger\.db\.lock"):
        async with opened(tmp_path / "ledger.db"):
            pass


async def test_a_question_outlasts_trouble_with_the_disk(tmp_path: Path) -> None:
    """A read that fails for a moment is asked again, as a transition is."""
    async with opened(tmp_path / "ledger.db") as ledger:
        failures = 3

        def fails_at_first(conn: sa.Connection) -> str:
            nonlocal failures
            failures -= 1
            if failures:
                raise sa.exc.OperationalError("select", None, sqlite3.OperationalError("disk I/O error"))
            return "answer"

        ledger._outlast._sleep = lambda seconds: asyncio.sleep(0)
        assert await ledger._ask(fails_at_first) == "answer"


async def test_open_rows_of_other_feeds_hide_none_of_those_asked_for(ledger: Ledger) -> None:
    """A removed feed may have left any number of them."""
    await ledger.enqueue([version(f"{n}.csv", feed="removed", inode=n) for n in range(20)])
    await ledger.enqueue([version("a.csv")])
    assert [entry.version.path for entry, _ in await ledger.open_entries(["orders"], 5)] == ["a.csv"]


async def test_a_delivery_is_recorded_also_when_its_caller_is_cancelled(ledger: Ledger) -> None:
    """It has happened: only what was recorded as delivered can be recorded as archived."""
    await ledger.enqueue([version()])
    [entry] = await ledger.claim(ONE)
    recording = asyncio.create_task(ledger.uploaded(entry.id, RECEIPT, target="table-1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    assert await ledger.archived(Closing(entry.id, "/archive/a.csv"))


async def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    """A wrong [ledger] url may name anything: its permissions are not changed, and no lock is made beside it."""
    path = tmp_path / "accounts"
    path.write_text("root:x:0:0\n")
    path.chmod(0o644)
    with pytest.raises(LedgerUnusable, match=r"is no ledger: file is not a database.*Or correct \[ledger\] url"):
        async with opened(path, Clock()):
            pass
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("root:x:0:0\n", 0o644)
    assert [it.name for it in tmp_path.iterdir()] == ["accounts"]


@pytest.mark.parametrize("below", ["", "missing"])
def test_where_a_ledger_cannot_be_made_its_directory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    """To be owned where it is there, and made where it is not. Root may write anywhere, so it is told otherwise."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    path = tmp_path / below / "ledger.db"
    with pytest.raises(LedgerUnusable) as caught:
        sqlite_side.inspect(path)
    assert f"cannot be made: {tmp_path} is not writable for this user. Let there be {path.parent}, owned" in str(
        caught.value
    )
    assert caught.value.exit_code is Exit.NO_PERMISSION
