import asyncio
import errno
import os
import shutil
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.intake import make_feed, public_directory, unprivileged
from tablefeed.errors import DiskTrouble, FeedBlocked
from tablefeed.watch.scan import BATCH, Batch, Selection, scan


async def scanned(root: Path, below: str = "", **changes: Any) -> list[Batch]:
    return [batch async for batch in scan(root, Selection(make_feed(root, **changes)), below)]


async def paths(root: Path, below: str = "", **changes: Any) -> set[str]:
    return {path for batch in await scanned(root, below, **changes) for path, _ in batch.entries}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def taken(names: list[str], **changes: Any) -> list[str]:
    selection = Selection(make_feed(Path("/srv/orders"), **({"recursive": True} | changes)))
    return [name for name in names if selection.takes(name)]


@pytest.mark.parametrize(
    ("patterns", "takes", "leaves"),
    [
        (
            ["*.csv"],
            ["a.csv", "A.CSV", "sub/a.Csv", "a b\n.csv", "\udcff.csv"],
            ["a.csv.tmp", ".a.csv", "acsv", ".csv"],
        ),
        ([".*.csv"], [".a.csv", "sub/.a.csv"], ["a.csv"]),
        (["in/*.csv"], ["in/a.csv", "IN/A.csv"], ["a.csv", "in/sub/a.csv", "x/in/a.csv", "in/.a.csv"]),
        (["in/**/*.csv"], ["in/a.csv", "in/b/c/a.csv"], ["a.csv", "x/in/a.csv", "in/b/.a.csv"]),
        (["**/a.csv"], ["a.csv", "b/c/a.csv"], ["ba.csv"]),
        (["a?.csv"], ["a1.csv"], ["a.csv", "a12.csv"]),
        (["a[0-9].csv"], ["a1.csv"], ["ax.csv"]),
        (["a[!0-9].csv"], ["ax.csv"], ["a1.csv", "a/.csv"]),
        (["a[.csv"], ["a[.csv"], ["a.csv"]),
        (["a[z-a].csv"], ["a[z-a].csv"], ["az.csv"]),
        (["?a.csv"], ["xa.csv"], [".a.csv"]),
        (["a.csv"], ["a.csv"], ["axcsv"]),
        (["*.csv", "*.xlsx"], ["a.csv", "a.xlsx"], ["a.txt", "a.csv\n"]),
        ([], [], ["a.csv"]),
    ],
)
def test_patterns_take_what_a_shell_would(patterns: list[str], takes: list[str], leaves: list[str]) -> None:
    """Names without case, paths where the pattern has a slash, no wildcard for a leading dot or a slash."""
    assert taken(takes + leaves, include=tuple(patterns)) == takes


def test_what_is_excluded_is_left() -> None:
    """An exclude wins over an include."""
    assert taken(["a.csv", "a_TMP.csv", "old/a.csv"], exclude=("*_tmp*", "old/*")) == ["a.csv"]


def test_our_own_temporary_files_are_left() -> None:
    """Even where a pattern would take them."""
    assert taken([".tablefeed-x.csv", ".x.csv"], include=(".*.csv",)) == [".x.csv"]


@pytest.mark.parametrize(
    ("archive", "left", "entered"),
    [
        ("archive", ["archive/a.csv", "archive/2024/a.csv"], ["archived/a.csv"]),
        ("archive/%Y/%m", ["archive/2024/01/a.csv", "archive/a.csv"], ["archives/a.csv"]),
        ("sent-%Y", ["sent-2024/a.csv"], ["send/a.csv"]),
        ("done/sent-%Y", ["done/sent-2024/a.csv"], ["done/a.csv"]),
        ("%Y/%m", ["2024/01/a.csv"], []),
        ("/srv/orders/archive/", ["archive/a.csv"], ["x/archive/a.csv"]),
        ("./x/../archive", ["archive/a.csv"], ["x/a.csv"]),
        ("/srv/elsewhere/%Y", [], ["elsewhere/a.csv"]),
        ("../elsewhere", [], ["elsewhere/a.csv"]),
        ("delete", [], ["delete/a.csv"]),
        ("leave", [], ["leave/a.csv"]),
    ],
)
def test_what_was_moved_away_is_not_found_again(archive: str, left: list[str], entered: list[str]) -> None:
    """A recursive feed does not enter the directories that it moves its files to: it would deliver them for ever."""
    assert taken([*left, *entered, "failed/a.csv"], archive=archive) == entered


@example("[?--]", "a")
@given(st.text(alphabet="a.[]*?!-/\\^", max_size=12), st.text(alphabet="a.b/", min_size=1, max_size=8))
def test_any_pattern_compiles(pattern: str, path: str) -> None:
    """Odd brackets are taken by their letters; nothing raises."""
    assert taken([path], include=(pattern,)) in ([], [path])


async def test_files_come_out_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories, links, pipes and sockets with a fitting name stay out, and each is told with its reason."""
    touch(tmp_path, "a.csv", "b.xlsx", "c.txt", "sub/d.csv", "failed/e.csv")
    feed: dict[str, Any] = {"include": ("*.csv", "*.xlsx", "failed")}
    (tmp_path / "dir.csv").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.csv")
        assert await paths(tmp_path, **feed) == {"a.csv", "b.xlsx"}
        assert await paths(tmp_path, **feed, recursive=True) == {"a.csv", "b.xlsx", "sub/d.csv"}
        [flat], [deep] = await scanned(tmp_path, **feed), await scanned(tmp_path, **feed, recursive=True)
    entered = {"dir.csv": "it is a directory, and the feed is not recursive"}
    others = {
        "link.csv": "it is a symbolic link, and links are not followed",
        "pipe.csv": "it is a pipe, not a file",
        "socket.csv": "it is a socket, not a file",
    }
    assert {problem.path: problem.cause for problem in flat.problems} == others | entered
    assert {problem.path: problem.cause for problem in deep.problems} == others


async def test_a_recursive_scan_enters_what_is_the_feeds(tmp_path: Path) -> None:
    """Hidden directories (snapshots, a file manager's trash) and the feed's own targets are not entered."""
    touch(tmp_path, "x/y/a.csv", ".snapshot/a.csv", "archive/a.csv", "failed/a.csv")
    assert await paths(tmp_path, recursive=True) == {"x/y/a.csv"}
    assert await paths(tmp_path, "x", recursive=True) == {"x/y/a.csv"}
    assert await paths(tmp_path, "no/longer/there", recursive=True) == set()


@pytest.mark.parametrize(
    ("archive", "left"),
    [
        ("{root}/store", "store/2026/a.csv"),
        ("{root}/store/%Y", "store/2026/a.csv"),
        ("{root}/sent-%Y", "sent-2026/a.csv"),
        ("linked", "store/2026/a.csv"),
        ("linked/%Y", "store/2026/a.csv"),
    ],
)
async def test_links_do_not_lead_back_to_what_was_moved_away(tmp_path: Path, archive: str, left: str) -> None:
    """Where only a link tells that the archive lies in the feed's directory, files are not delivered for ever."""
    root, link = tmp_path / "root", tmp_path / "link"
    touch(root, "x/a.csv", "archived/a.csv", "sent/a.csv", left)
    (root / "linked").symlink_to("store")
    link.symlink_to(root)
    found = await paths(link, recursive=True, archive=archive.format(root=root))
    assert found == {"x/a.csv", "archived/a.csv", "sent/a.csv"}


async def test_a_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    """It comes out with surrogates, and its stat is right."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).write_text("123")
    [batch] = await scanned(tmp_path)
    assert [(path, stat.st_size) for path, stat in batch.entries] == [("\udcff.csv", 3)]


async def test_batches_are_bounded_and_made_when_asked_for(tmp_path: Path) -> None:
    """No more than one batch is read ahead of its consumer."""
    touch(tmp_path, *(f"{number}.csv" for number in range(2 * BATCH + 1)))
    hops = 0

    async def counting(function: Callable[[], Any], /) -> Any:
        nonlocal hops
        hops += 1
        return await asyncio.to_thread(function)

    batches = scan(tmp_path, Selection(make_feed(tmp_path)), run=counting)
    sizes = [len((await anext(batches)).entries)]
    assert hops == 1
    sizes += [len(batch.entries) async for batch in batches]
    assert sizes == [BATCH, BATCH, 1]


async def test_the_loop_turns_and_memory_stays_while_a_large_directory_is_read(tmp_path: Path) -> None:
    """Ten times the files take no more memory, and another task goes on all the while."""
    peaks = []
    for count in (2_000, 20_000):
        root = tmp_path / str(count)
        touch(root, *(f"{number}.csv" for number in range(count)))
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        tracemalloc.start()
        found = 0
        async for batch in scan(root, Selection(make_feed(root))):
            found += len(batch.entries)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        turning.cancel()
        assert found == count
        assert turns > count // BATCH
    assert peaks[1] < peaks[0] * 2


async def test_a_directory_that_cannot_be_read_does_not_stop_the_rest() -> None:
    """It is named as a problem; the others' files are found."""
    with public_directory() as root:
        touch(root, "a.csv", "shut/b.csv", "open/c.csv")
        (root / "shut").chmod(0)
        with unprivileged():
            batches = await scanned(root, recursive=True)
        (root / "shut").chmod(0o755)
    assert {path for batch in batches for path, _ in batch.entries} == {"a.csv", "open/c.csv"}
    assert [problem.path for batch in batches for problem in batch.problems] == ["shut"]


async def test_a_directory_that_vanishes_during_the_walk_is_no_problem(tmp_path: Path) -> None:
    """Producers delete their directories; the files that are left come out."""
    touch(tmp_path, *(f"a/{number}.csv" for number in range(BATCH)), "b/1.csv", "c/1.csv")
    batches = scan(tmp_path, Selection(make_feed(tmp_path, recursive=True)))
    first = await anext(batches)
    for name in ("a", "b", "c"):
        shutil.rmtree(tmp_path / name)
    rest = [batch async for batch in batches]
    assert first.entries
    assert [problem for batch in rest for problem in batch.problems] == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.touch(), "is not a directory"),
        (lambda root: root.mkdir(0), "may not be read"),
    ],
)
async def test_trouble_with_the_root_blocks_the_feed(make: Callable[[Path], None], words: str) -> None:
    """The error names the directory and what to do."""
    with public_directory() as parent:
        root = parent / "orders"
        make(root)
        with unprivileged(), pytest.raises(FeedBlocked, match=words) as raised:
            await scanned(root)
    assert str(root) in str(raised.value)
    assert raised.value.remedy


async def test_an_io_error_of_the_root_is_the_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that hangs or fails is waited for; the feed is not misconfigured."""

    def broken(*_: object, **__: object) -> int:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("tablefeed.watch.scan.os.open", broken)
    with pytest.raises(DiskTrouble, match="Stale file handle"):
        await scanned(tmp_path)


async def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    """The operator has written it into the configuration; below it no link is followed."""
    touch(tmp_path, "real/a.csv")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert await paths(tmp_path / "root") == {"a.csv"}
