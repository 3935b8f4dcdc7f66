"""The intake of a directory that other nodes have as well: who looks at it, and what becomes of one that is away."""

import asyncio
import gc
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.intake import NEVER, Known, make_feed, taking_in
from support.patience import PATIENCE, until
from tablefeed.errors import DiskTrouble
from tablefeed.intake import Hooks, Intake
from tablefeed.model import Feed, FileVersion
from tablefeed.others import Others


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "orders"
    path.mkdir()
    return path


def intake_of(feed: Feed, others: Others, told: list[str] | None = None) -> Intake:
    """One that scans when it is asked to, and tells its troubles and their end."""
    told = [] if told is None else told
    return Intake(
        feed,
        Known("a.csv"),
        Hooks(lambda _: None, lambda error: told.append(str(error)), lambda: told.append("recovered")),
        rescan=NEVER,
        polling=True,
        clock=time.time,
        others=others,
    )


async def yes(_: str) -> bool:
    return True


async def nobody(_: str) -> bool:
    return False


async def nothing(_: str) -> FileVersion | None:
    return None


async def look(_: str, _paths: Sequence[str]) -> None:
    return


async def test_a_directory_that_another_node_looks_at_is_left_to_it(root: Path) -> None:
    """What waited here waits there, so that nothing is due here again and again; what events tell is passed on."""
    (root / "a.csv").write_text("1")
    is_ours = [True, False, False]
    passed_on: list[str] = []

    async def may_scan(_: str) -> bool:
        return is_ours.pop(0)

    async def look(_: str, paths: Sequence[str]) -> None:
        passed_on.extend(paths)

    intake = intake_of(make_feed(root, settle=1_000.0), Others(may_scan, look, nobody, nothing))
    assert [*await intake.settle_all(0.0)] == ["a.csv"]
    assert intake.scanned.is_set()
    assert await intake.settle_all(0.0) == {}
    assert not intake.scanned.is_set(), "what stands before a strict feed's queue is not known here"
    intake.hint("b.csv")
    await intake.settle_all(0.0)
    assert passed_on == ["b.csv"]


@pytest.mark.parametrize("place_is_there", [False, True], ids=["missing", "not mounted"])
async def test_a_share_that_is_away_here_is_left_to_other_nodes(root: Path, place_is_there: bool) -> None:
    """It is not looked at here before it is there again, and then only when no other node does."""
    share, held, answers = root.with_name("share"), [False], [False, True]
    told: list[str] = []
    root.rmdir()
    share.mkdir()
    last = FileVersion.of("orders", "a.csv", share.stat(), share.stat().st_ino)

    async def may_scan(_: str) -> bool:
        held[0] = answers.pop(0)
        return held[0]

    async def leave(_: str) -> bool:
        held[0] = False
        return True

    async def found(_: str) -> FileVersion:
        return last

    intake = intake_of(make_feed(root, shared=True), Others(may_scan, look, leave, found), told)
    if place_is_there:
        root.mkdir()
    for _ in range(2):
        await intake.settle_all(0.0)
    assert (held, answers, len(told)) == ([False], [False, True], 1)
    assert not intake.scanned.is_set()
    if place_is_there:
        root.rmdir()
    share.rename(root)
    await intake.settle_all(0.0)
    assert (held, answers, told[1:]) == ([False], [True], ["recovered"])
    await intake.settle_all(0.0)
    assert held == [True]
    assert intake.scanned.is_set()


async def test_a_share_that_fails_after_its_feed_is_removed_is_nobodys_trouble(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload ends the intake while the share hangs: what it says in the end is not told as an error of the daemon."""
    answer, answered = threading.Event(), threading.Event()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def hangs(_: Path) -> bool:
        answer.wait(2 * PATIENCE)
        answered.set()
        raise DiskTrouble(str(root), "Stale file handle")

    monkeypatch.setattr("tablefeed.intake.is_empty", hangs)
    async with taking_in(make_feed(root, shared=True), root.parent / "ledger.db", polling=True) as running:
        await until(running.intake.first_scan.is_set)
    answer.set()
    await asyncio.to_thread(answered.wait, PATIENCE)
    del running
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert told == []


async def test_what_stands_before_a_strict_feed_is_not_known_where_another_may_look(root: Path) -> None:
    """A node that lost the scans with its connection lets no file go before its turn; it asks for them at once."""
    scans = [False]

    async def yes(_: str) -> bool:
        scans[0] = True
        return True

    intake = intake_of(make_feed(root, shared=True, strict=True), Others(yes, look, yes, nothing, lambda _: scans[0]))
    running = asyncio.create_task(intake.run())
    try:
        await until(intake.front)
        scans[0] = False
        assert intake.front() is None
        await until(intake.front)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_share_that_hangs_keeps_no_daemon_from_being_ready(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away holds up its own feed alone: systemd would end a daemon that waits for it."""
    answer = threading.Event()

    def hangs(_: Path) -> bool:
        return answer.wait(2 * PATIENCE)

    monkeypatch.setattr("tablefeed.intake.is_empty", hangs)
    intake = intake_of(make_feed(root, shared=True), Others(nobody, look, nobody, nothing))
    running = asyncio.create_task(intake.settle_all(0.0))
    try:
        await asyncio.wait_for(intake.first_scan.wait(), PATIENCE)
    finally:
        answer.set()
        await running


async def test_a_share_that_is_lost_in_a_scan_is_let_go_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with it here, another node may have it."""
    left: list[str] = []

    async def leave(feed: str) -> bool:
        left.append(feed)
        return True

    def stale(*_: object, **__: object) -> Any:
        raise DiskTrouble(str(root), "Stale file handle")

    intake = intake_of(make_feed(root, shared=True), Others(yes, look, leave, nothing))
    await intake.settle_all(0.0)
    assert intake.scanned.is_set()
    monkeypatch.setattr("tablefeed.intake.scan", stale)
    await intake.settle_all(0.0)
    assert left == ["orders"]
    assert not intake.scanned.is_set()


async def test_a_share_that_hangs_here_is_left_to_other_nodes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for it cannot be ended, and keeps nobody from looking."""
    monkeypatch.setattr("tablefeed.intake._HANGS", 0.05)
    left, goes_on = asyncio.Event(), threading.Event()

    def hangs(_: Path) -> bool:
        goes_on.wait(2 * PATIENCE)
        return False

    async def leave(_: str) -> bool:
        left.set()
        return True

    monkeypatch.setattr("tablefeed.intake.is_empty", hangs)
    intake = intake_of(make_feed(root, shared=True), Others(yes, look, leave, nothing))
    settling = asyncio.create_task(intake.settle_all(0.0))
    await asyncio.wait_for(left.wait(), PATIENCE)
    assert not settling.done()
    goes_on.set()
    await settling
    assert intake.scanned.is_set()
