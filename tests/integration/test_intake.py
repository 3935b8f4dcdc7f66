import asyncio
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from structlog.testing import capture_logs

from support.intake import (
    NEVER,
    SETTLE,
    Holder,
    Known,
    Running,
    ledger_for_all,
    made,
    make_feed,
    public_directory,
    taking_in,
    unprivileged,
)
from support.patience import PATIENCE, until
from tablefeed import mounts
from tablefeed.errors import DiskTrouble
from tablefeed.intake import Hooks, Intake
from tablefeed.model import FileVersion, Order, Ready, State

FAR_FUTURE = 4_102_444_800.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "orders"
    path.mkdir()
    return path


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def armed(running: Running) -> None:
    """Until the first scan is done and the one that follows the start of the watch."""
    await until(lambda: running.intake._seen.scans >= 2 and running.intake.scanned.is_set())


async def test_what_lies_there_and_what_comes_is_queued(root: Path, db: Path) -> None:
    """The first scan finds the old file, an event the new one; the dispatcher is woken for each."""
    (root / "old.csv").write_text("1")
    async with taking_in(make_feed(root), db) as running:
        await asyncio.wait_for(running.intake.first_scan.wait(), PATIENCE)
        await until(lambda: "old.csv" in running.queued)
        await armed(running)
        (root / "new.csv").write_text("1")
        await until(lambda: "new.csv" in running.queued)
        assert set(running.woken) == {"orders"}
        assert running.queued["new.csv"] == FileVersion.of("orders", "new.csv", (root / "new.csv").stat())
        assert running.intake.waiting == {}


async def test_a_file_that_is_held_open_waits_for_its_close(root: Path, db: Path) -> None:
    """A writer that pauses for longer than `settle` has not ended: the close, which gives no event, is noticed."""
    async with taking_in(make_feed(root), db) as running:
        await armed(running)
        holder = Holder(root / "slow.csv")
        await until(lambda: running.reasons().get("slow.csv") == "a process has it open for writing")
        assert running.queued == {}
        holder.close()
        await until(lambda: "slow.csv" in running.queued)


async def test_a_file_is_queued_settle_after_its_last_change_and_not_before(root: Path, db: Path) -> None:
    """Quiet time is counted from the last write."""
    async with taking_in(make_feed(root, settle=0.4), db) as running:
        await armed(running)
        for _ in range(100):
            with (root / "grows.csv").open("a") as file:
                file.write("row\n")
            await asyncio.sleep(0)
        last = (root / "grows.csv").stat().st_ctime
        await until(lambda: "grows.csv" in running.queued)
        assert time.time() - last > 0.4
        assert running.queued["grows.csv"].size == 400


async def test_a_file_that_grows_is_not_looked_at_with_every_write(root: Path, db: Path) -> None:
    """It is looked at when its quiet time may be over; a hint before that asks the ledger nothing."""
    async with taking_in(make_feed(root, settle=NEVER), db, polling=True) as running:
        await asyncio.wait_for(running.intake.scanned.wait(), PATIENCE)
        for name in ("grows.csv", "other.csv"):
            (root / name).write_text("1")
        running.intake.hint("grows.csv")
        await until(lambda: "grows.csv" in running.reasons())
        asked = sum(running.notes.questions)
        running.intake.hint("grows.csv")
        running.intake.hint("other.csv")
        await until(lambda: "other.csv" in running.reasons())
        assert sum(running.notes.questions) == asked + 1


async def test_what_is_no_file_is_never_queued(root: Path, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipes, sockets, links and directories with fitting names are passed over, and none of them hangs the feed."""
    (root.parent / "target.csv").write_text("secret")

    def make(prefix: str) -> None:
        os.mkfifo(root / f"{prefix}pipe.csv")
        (root / f"{prefix}link.csv").symlink_to(root.parent / "target.csv")
        (root / f"{prefix}dir.csv").mkdir()
        (root / f"{prefix}linked").symlink_to(root.parent)
        listener.bind(f"{prefix}socket.csv")

    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        make("old-")
        async with taking_in(make_feed(root, recursive=True), db) as running:
            await armed(running)
            with socket.socket(socket.AF_UNIX) as listener:
                make("new-")
                (root / "real.csv").write_text("1")
                await until(lambda: "real.csv" in running.queued)
            assert set(running.queued) == {"real.csv"}
            assert running.intake.waiting == {}


async def test_files_in_a_new_directory_are_found(root: Path, db: Path) -> None:
    """The kernel tells of the directory alone when files came into it before it was watched."""
    ready = root.parent / "ready"
    (ready / "deep").mkdir(parents=True)
    (ready / "deep/a.csv").write_text("1")
    async with taking_in(make_feed(root, recursive=True), db) as running:
        await armed(running)
        ready.rename(root / "moved")
        (root / "made/deep").mkdir(parents=True)
        (root / "made/deep/b.csv").write_text("1")
        await until(lambda: set(running.queued) == {"moved/deep/a.csv", "made/deep/b.csv"})


async def test_a_link_to_a_directory_of_the_feed_hides_no_event(root: Path, db: Path) -> None:
    """The kernel tells of a directory with two names by one of them; the file is queued under its own path."""
    (root / "2024").mkdir()
    (root / "current").symlink_to("2024")
    async with taking_in(make_feed(root, recursive=True), db) as running:
        await armed(running)
        (root / "2024/a.csv").write_text("1")
        (root / "current/b.csv").write_text("1")
        await until(lambda: set(running.queued) == {"2024/a.csv", "2024/b.csv"})


async def test_a_root_that_is_deleted_and_made_anew_goes_on(root: Path, db: Path) -> None:
    """The trouble is told once and so is its end; the file in the new directory is found."""
    async with taking_in(make_feed(root), db) as running:
        await armed(running)
        shutil.rmtree(root)
        await until(lambda: running.told)
        scans = running.intake._seen.scans
        await until(lambda: running.intake._seen.scans >= scans + 3)
        root.mkdir()
        (root / "a.csv").write_text("1")
        await until(lambda: "a.csv" in running.queued)
        await until(lambda: running.told[-1] == "recovered")
        (root / "b.csv").write_text("1")
        await until(lambda: "b.csv" in running.queued)
    assert len(running.told) == 2
    assert "does not exist" in running.told[0]
    assert str(root) in running.told[0]


async def test_a_root_that_is_away_is_looked_for_more_often_than_by_rescan(root: Path, db: Path) -> None:
    """The feed resumes on the slow tick, without events too."""
    root.rmdir()
    async with taking_in(make_feed(root), db, polling=True) as running:
        await until(lambda: running.told)
        root.mkdir()
        await until(lambda: running.told[-1] == "recovered")


async def test_a_root_without_permission_blocks_the_feed_until_it_is_given(tmp_path: Path) -> None:
    """The reason names the directory; the feed resumes by itself."""
    with public_directory() as parent:
        parent.chmod(0o777)
        db = await ledger_for_all(parent / "ledger.db")
        with unprivileged():
            root = parent / "orders"
            root.mkdir(0)
            async with taking_in(make_feed(root), db) as running:
                await until(lambda: running.told)
                assert "may not be read" in running.told[0]
                assert running.intake.first_scan.is_set()
                assert not running.intake.scanned.is_set()
                root.chmod(0o755)
                (root / "a.csv").write_text("1")
                await until(lambda: "a.csv" in running.queued)


async def test_without_events_the_scans_find_all(root: Path, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no watch can be had the feed works on, later only by `rescan`."""

    def full(*_: object, **__: object) -> Iterator[set[tuple[watchfiles.Change, str]]]:
        raise OSError("OS file watch limit reached.")
        yield set()

    monkeypatch.setattr(watchfiles, "watch", full)
    with capture_logs() as logs:
        async with taking_in(make_feed(root), db, rescan=0.1) as running:
            await until(lambda: logs)
            (root / "a.csv").write_text("1")
            await until(lambda: "a.csv" in running.queued)
    assert [entry["event"] for entry in logs] == ["watch_failed"]


async def test_polling_begins_no_watch(root: Path, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, files are found by scans alone."""
    monkeypatch.setattr(watchfiles, "watch", None)
    async with taking_in(make_feed(root), db, rescan=0.1, polling=True) as running:
        await asyncio.wait_for(running.intake.scanned.wait(), PATIENCE)
        (root / "a.csv").write_text("1")
        await until(lambda: "a.csv" in running.queued)


async def test_a_burst_is_found_whole(root: Path, db: Path) -> None:
    """2,000 files at once, more than one batch and past the mark of a flood."""
    async with taking_in(make_feed(root), db) as running:
        await armed(running)
        for number in range(2_000):
            (root / f"{number}.csv").write_text("1")
        await until(lambda: len(running.queued) == 2_000)


@pytest.mark.parametrize("limit", [20, 10_000])
async def test_more_files_than_fit_are_found_too(
    root: Path, db: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """What finds no room to wait is found by another scan as soon as there is room, not only by the next `rescan`."""
    monkeypatch.setattr("tablefeed.intake.LIMIT", limit)
    async with taking_in(make_feed(root, ready=Ready.STABLE), db, polling=True) as running:
        await asyncio.wait_for(running.intake.scanned.wait(), PATIENCE)
        for number in range(60):
            (root / f"{number}.csv").write_text("1")
        for number in range(60):
            running.intake.hint(f"{number}.csv")
        await until(lambda: len(running.queued) == 60)


async def test_a_name_that_is_not_utf8_is_refused_and_harms_no_other(root: Path, db: Path) -> None:
    """The reason can be printed; files that come after it are found."""
    async with taking_in(make_feed(root), db, rescan=0.2) as running:
        await armed(running)
        Path(os.fsdecode(os.fsencode(root) + b"/\xff.csv")).write_text("1")
        (root / "a.csv").write_text("1")
        await until(lambda: running.refused and "a.csv" in running.queued)
    [(path, error)] = running.refused.items()
    assert path == "\udcff.csv"
    assert "UTF-8" in str(error)
    assert r"\xff.csv" in str(error)
    str(error).encode()


@pytest.mark.parametrize("mtime", [0.0, FAR_FUTURE], ids=["old", "future"])
async def test_an_mtime_that_was_set_neither_hastens_nor_stops_a_file(root: Path, db: Path, mtime: float) -> None:
    """`cp -p` and `touch -d 2100` say nothing about when the bytes came."""
    async with taking_in(make_feed(root), db) as running:
        await armed(running)
        (root / "a.csv").write_text("1")
        os.utime(root / "a.csv", (mtime, mtime))
        changed = (root / "a.csv").stat().st_ctime
        await until(lambda: "a.csv" in running.queued)
        assert time.time() - changed > SETTLE


async def test_without_leases_a_file_must_be_seen_unchanged(
    root: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network share an old ctime proves nothing either: the file is looked at twice, `settle` apart."""
    table = root.parent / "mountinfo"
    table.write_text("1 0 0:99 / / rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    (root / "a.csv").write_text("1")
    await until(lambda: time.time() - (root / "a.csv").stat().st_ctime > 2 * SETTLE)
    began = time.time()
    async with taking_in(make_feed(root), db) as running:
        await until(lambda: "a.csv" in running.queued)
        assert time.time() - began >= SETTLE


async def test_a_marker_releases_its_file(root: Path, db: Path) -> None:
    """The marker's event leads to the file, without a wait; the marker itself is not delivered."""
    feed = make_feed(root, ready=Ready.MARKER, settle=NEVER, include=("*",))
    async with taking_in(feed, db) as running:
        await armed(running)
        (root / "a.csv").write_text("1")
        await until(lambda: "not there yet" in running.reasons().get("a.csv", ""))
        (root / "a.csv.done").touch()
        await until(lambda: "a.csv" in running.queued)
        assert set(running.queued) == {"a.csv"}


async def test_a_queued_file_that_changes_is_queued_in_its_new_version(root: Path, db: Path) -> None:
    """The old version is gone and the new one waits in the queue."""
    (root / "a.csv").write_text("1")
    async with taking_in(make_feed(root), db) as running:
        await until(lambda: "a.csv" in running.queued)
        await armed(running)
        (root / "a.csv").write_text("22")
        await until(lambda: running.queued["a.csv"].size == 2)
        assert await running.notes.ledger.counts() == {("orders", State.QUEUED): 1}


async def test_a_hint_leads_to_the_path_at_once(root: Path, db: Path) -> None:
    """The pipeline knows of a change that neither an event nor a scan has told."""
    async with taking_in(make_feed(root), db, polling=True) as running:
        await asyncio.wait_for(running.intake.scanned.wait(), PATIENCE)
        (root / "a.csv").write_text("1")
        running.intake.hint("a.csv")
        await until(lambda: "a.csv" in running.queued)


@pytest.mark.parametrize("polling", [False, True])
async def test_events_lead_to_no_file_that_the_patterns_leave_out(root: Path, db: Path, polling: bool) -> None:
    """In a recursive feed any path may be that of a directory; a file by such a name stays where it is."""
    (root / "sub").mkdir()
    feed = make_feed(root, recursive=True, exclude=("*.part.csv",))
    async with taking_in(feed, db, polling=polling) as running:
        await (running.intake.scanned.wait() if polling else armed(running))
        names = ("a.txt", "a.part.csv", "sub/a.csv.tmp", "sub/a.part.csv", "sub/z.csv", "z.csv")
        for name in names:
            (root / name).write_text("1")
        for name in names:
            running.intake.hint(name)
        await until(lambda: {"sub/z.csv", "z.csv"} <= {*running.queued})
        (root / "sub" / "later.csv").write_text("1")
        running.intake.hint("sub/later.csv")
        await until(lambda: "sub/later.csv" in running.queued)
        assert set(running.queued) == {"sub/z.csv", "z.csv", "sub/later.csv"}


async def test_a_waiting_file_that_vanishes_is_forgotten(root: Path, db: Path) -> None:
    """By its event, or by the next scan where the event was lost."""
    feed = make_feed(root, ready=Ready.MARKER)
    for rescan, polling in ((NEVER, False), (0.1, True)):
        (root / "a.csv").write_text("1")
        async with taking_in(feed, db, rescan=rescan, polling=polling) as running:
            await until(lambda: "a.csv" in running.reasons())
            if not polling:
                await armed(running)
            (root / "a.csv").unlink()
            await until(lambda: running.reasons() == {})


async def test_a_scan_of_what_is_queued_already_opens_nothing(
    root: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question a batch, and no file is looked at again."""
    for number in range(2_500):
        (root / f"{number}.csv").write_text("1")
    async with taking_in(make_feed(root), db, polling=True) as running:
        await until(lambda: len(running.queued) == 2_500)
        running.notes.questions.clear()
        monkeypatch.setattr("tablefeed.watch.judge.observe", None)
        running.intake.hint("")
        await until(lambda: len(running.notes.questions) >= 3)
    assert sorted(running.notes.questions) == [500, 1_000, 1_000]


async def test_trouble_with_one_file_leaves_the_others(root: Path, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error of one file lets that file wait, with the reason, and not the feed."""
    from tablefeed.watch import observe

    real = observe.probe
    broken = True

    def probe(where: Path, seen: Any, *more: Any) -> Any:
        if broken and seen.version.path == "bad.csv":
            raise DiskTrouble("bad.csv", "Input/output error")
        return real(where, seen, *more)

    monkeypatch.setattr(observe, "probe", probe)
    for name in ("a.csv", "bad.csv", "c.csv"):
        (root / name).write_text("1")
    async with taking_in(make_feed(root), db, polling=True) as running:
        await until(lambda: set(running.queued) == {"a.csv", "c.csv"})
        await until(lambda: "Input/output error" in running.reasons().get("bad.csv", ""))
        broken = False
        await until(lambda: "bad.csv" in running.queued)
    assert running.told == []


async def test_a_directory_that_cannot_be_read_is_logged_once() -> None:
    """It stays shut for many scans, and is news in the first alone."""
    with public_directory() as parent:
        parent.chmod(0o777)
        db = await ledger_for_all(parent / "ledger.db")
        with unprivileged():
            root = parent / "orders"
            (root / "shut").mkdir(parents=True)
            (root / "shut").chmod(0)
            with capture_logs() as logs:
                async with taking_in(make_feed(root, recursive=True), db, rescan=0.05, polling=True) as running:
                    await until(lambda: running.intake._seen.scans >= 4)
            (root / "shut").chmod(0o755)
    assert [(entry["event"], entry["path"]) for entry in logs] == [("not_scanned", "shut")]


async def test_an_idle_intake_rests(root: Path, db: Path) -> None:
    """Without a file to wait for it sleeps until the next scan, and is not woken in between."""
    async with taking_in(make_feed(root), db, polling=True) as running:
        await asyncio.wait_for(running.intake.scanned.wait(), PATIENCE)
        turns = 0
        real = running.intake._look_around

        async def counted() -> None:
            nonlocal turns
            turns += 1
            await real()

        running.intake._look_around = counted  # type: ignore[method-assign]
        (root / "a.csv").write_text("1")
        running.intake.hint("a.csv")
        await until(lambda: "a.csv" in running.queued)
        assert turns <= 4


async def test_settle_all_returns_what_is_left(root: Path, db: Path) -> None:
    """Fresh files are waited for; one that is held open and an empty one are returned with their reasons."""
    (root / "fresh.csv").write_text("1")
    (root / "empty.csv").touch()
    holder = Holder(root / "held.csv")
    async with made(make_feed(root), db) as running:
        left = await running.intake.settle_all(1.0)
    holder.close()
    assert set(running.queued) == {"fresh.csv"}
    assert {path: wait.reason for path, wait in left.items()} == {
        "empty.csv": "it is empty",
        "held.csv": "a process has it open for writing",
    }


async def test_settle_all_does_not_wait_for_what_cannot_come_in_time(root: Path, db: Path) -> None:
    """An empty file's deadline is a day off: patience is not spent on it."""
    (root / "empty.csv").touch()
    async with made(make_feed(root), db) as running:
        await asyncio.wait_for(running.intake.settle_all(NEVER), PATIENCE)


async def test_settle_all_reports_a_missing_directory(tmp_path: Path, db: Path) -> None:
    """It returns, so that the other feeds are delivered, and the trouble is told."""
    async with made(make_feed(tmp_path / "none"), db) as running:
        assert await running.intake.settle_all(1.0) == {}
        assert len(running.told) == 1


async def test_the_front_of_a_strict_feed_is_known_when_all_has_been_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before the first whole scan, and not while more files wait than are kept in mind; then it is the first."""
    monkeypatch.setattr("tablefeed.intake.LIMIT", 8)
    feed = make_feed(tmp_path, strict=True, order=Order.NAME)
    for name in ("b.csv", "a.csv", "c.csv"):
        (tmp_path / name).touch()
    async with made(feed, tmp_path / "ledger") as running:
        assert running.intake.front() is None
        await running.intake.settle_all(0.0)
        front = running.intake.front()
        assert front is not None
        assert front.ahead is not None
        assert (front.ahead.path, front.reason) == ("a.csv", running.reasons()["a.csv"])
        for n in range(8):
            (tmp_path / f"more-{n}.csv").touch()
        await running.intake.settle_all(0.0)
        assert running.intake.front() is None


async def test_a_strict_feed_looks_again_when_the_file_in_front_vanishes(tmp_path: Path) -> None:
    """Nothing was queued by that, and yet another file may go now."""
    feed = make_feed(tmp_path, strict=True)
    (tmp_path / "placeholder.csv").touch()
    async with taking_in(feed, tmp_path / "ledger") as running:
        await until(lambda: running.intake.waiting)
        running.woken.clear()
        (tmp_path / "placeholder.csv").unlink()
        await until(lambda: not running.intake.waiting)
        await until(lambda: running.woken)
    assert running.queued == {}


@pytest.mark.parametrize(
    ("news", "delivering", "rests"), [((), True, True), ((), False, False), (("a.csv",), True, False)]
)
async def test_a_scan_gives_way_to_deliveries_unless_it_finds_what_is_to_be_delivered(
    root: Path, *, news: tuple[str, ...], delivering: bool, rests: bool
) -> None:
    """It would take the CPU from them for as long as the directory is large."""
    (root / "a.csv").write_text("1")
    rested: list[float] = []

    async def rest(seconds: float) -> None:
        rested.append(seconds)

    intake = Intake(
        make_feed(root, settle=0.0),
        Known(*news),
        Hooks(lambda _: None, lambda error: pytest.fail(str(error)), lambda: None, lambda: delivering),
        rescan=NEVER,
        polling=True,
        clock=time.time,
        sleep=rest,
    )
    await intake.settle_all(0.0)
    assert bool(rested) is rests
    assert all(seconds > 0 for seconds in rested)
