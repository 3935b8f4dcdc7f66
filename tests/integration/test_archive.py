import asyncio
import errno
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tablefeed.archive.moves
from support.archive import (
    MTIME_NS,
    UPLOADED_AT,
    Barrier,
    HookedDisk,
    MortalDisk,
    Once,
    PowerCut,
    Producer,
    archiving,
    books,
    drop,
    failing,
    feed_at,
    old_kernel,
    other_file_system,
    write,
)
from tablefeed.archive import Archiver, Moved
from tablefeed.archive.moves import Disk, Replaced, copy
from tablefeed.errors import DeliveryError, DiskTrouble, FeedBlocked, FileRefused
from tablefeed.links import Archivers
from tablefeed.model import Feed, FileVersion, Ready

CONTENT = b"id;name\n1;one\n"
OTHER = b"something else entirely\n"
CHUNK = 4096
LARGE = os.urandom(2 * CHUNK + 17)
REFUSED = FileRefused("orders.csv", "it is 6 GiB, more than one PUT carries", "Split the export")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a copy of a few kilobytes take several steps."""
    monkeypatch.setattr(tablefeed.archive.moves, "CHUNK", CHUNK)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    with other_file_system(tmp_path) as directory:
        yield directory


@pytest.fixture(params=["same file system", "other file system"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The archive's root, by rename and by copy."""
    if request.param == "same file system":
        return tmp_path / "kept"
    path: Path = request.getfixturevalue("elsewhere")
    return path / "kept"


async def move(feed: Feed, version: FileVersion, disk: Disk | None = None, content: bytes | None = CONTENT) -> Moved:
    async with archiving(disk) as archiver:
        return await archiver.move_delivered(feed, 7, version, UPLOADED_AT, None if content is None else md5(content))


async def test_a_delivered_file_is_moved_with_its_mtime_and_mode(root: Path, archive: Path) -> None:
    """The file lies in the archive with its bytes, mtime in nanoseconds and permissions, and nowhere else."""
    feed = feed_at(root, archive=str(archive))
    version = drop(feed, "orders.csv", LARGE, mode=0o604)
    moved = await move(feed, version, content=LARGE)
    assert moved == Moved(str(archive / "orders.csv"))
    found = (archive / "orders.csv").stat()
    assert (found.st_mtime_ns, stat.S_IMODE(found.st_mode)) == (MTIME_NS, 0o604)
    assert books(root, archive) == {str(archive / "orders.csv"): LARGE}


async def test_the_archives_name_is_dated_by_the_upload_in_utc(root: Path) -> None:
    """strftime codes stand for the moment of the upload, so that a move repeated after midnight goes to one place."""
    feed = feed_at(root, archive="archive/%Y-%m/%d_%H", recursive=True)
    version = drop(feed, "north/café/orders.csv", CONTENT)
    moved = await move(feed, version)
    assert moved.destination == str(root / "archive/2023-11/14_22/north/café/orders.csv")
    assert books(root) == {moved.destination: CONTENT}


async def test_nothing_is_overwritten(root: Path, archive: Path) -> None:
    """Files of one name get numbers, whoever put the first one there."""
    feed = feed_at(root, archive=str(archive))
    write(archive / "orders.csv", OTHER)
    for number in (1, 2, 3):
        content = CONTENT * number
        moved = await move(feed, drop(feed, "orders.csv", content), content=content)
        assert moved.destination == str(archive / f"orders-{number}.csv")
    assert sorted(books(root, archive).values()) == sorted([OTHER, CONTENT, CONTENT * 2, CONTENT * 3])


async def test_many_of_one_name_are_moved_at_once(root: Path) -> None:
    """A number is found without asking for each one before it, and without a gap."""
    feed = feed_at(root)
    (root / "archive").mkdir()
    (root / "archive/orders.csv").touch()
    for number in range(1, 3000):
        (root / f"archive/orders-{number}.csv").touch()
    attempts = []
    disk = HookedDisk(rename=lambda *paths: attempts.append(paths))
    moved = await move(feed, drop(feed, "orders.csv", CONTENT), disk)
    assert moved.destination == str(root / "archive/orders-3000.csv")
    assert len(attempts) == 2


async def test_delete_deletes(root: Path) -> None:
    """`archive = "delete"` removes the version that was sent and names no destination."""
    feed = feed_at(root, archive="delete")
    assert await move(feed, drop(feed, "orders.csv", CONTENT)) == Moved()
    assert books(root) == {}


async def test_leave_leaves(root: Path) -> None:
    """`archive = "leave"` touches nothing, and says whether the version is still there."""
    feed = feed_at(root, archive="leave", ready=Ready.MARKER)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.done", b"")
    before = (root / "orders.csv").stat()
    assert await move(feed, version) == Moved(left_in_place=True)
    assert (root / "orders.csv").stat() == before
    os.replace(root / "orders.csv.done", root / "orders.csv")
    assert await move(feed, version) == Moved(stranger=True)
    (root / "orders.csv").unlink()
    assert await move(feed, version) == Moved()


@pytest.mark.parametrize("where", ["archive", "delete"])
async def test_a_stranger_is_not_touched(root: Path, where: str) -> None:
    """When the path holds another version, or a link, that stays as it is and its caller is told."""
    feed = feed_at(root, archive=where)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv", OTHER)
    assert await move(feed, version) == Moved(stranger=True)
    assert books(root) == {str(root / "orders.csv"): OTHER}
    (root / "orders.csv").rename(root / "away.csv")
    (root / "orders.csv").symlink_to(root / "away.csv")
    assert await move(feed, version) == Moved(stranger=True)
    assert (root / "orders.csv").is_symlink()
    assert (root / "away.csv").read_bytes() == OTHER


def swap(root: Path, content: bytes = OTHER) -> Callable[[], object]:
    """What a producer does that replaces a file: one rename over it."""

    def replace_file() -> None:
        write(root / "new.tmp", content, mtime_ns=MTIME_NS + 1)
        os.replace(root / "new.tmp", root / "orders.csv")

    return replace_file


def is_source(source: Path, target: Path) -> bool:
    return source.name == "orders.csv"


@pytest.mark.parametrize("where", ["archive", "delete"])
async def test_a_stranger_that_slips_in_is_given_back(root: Path, where: str) -> None:
    """What a producer puts at the path in the instant of the move is put back untouched."""
    feed = feed_at(root, archive=where)
    version = drop(feed, "orders.csv", CONTENT)
    disk = HookedDisk(take=Once(swap(root), when=is_source))
    assert await move(feed, version, disk) == Moved(stranger=True)
    assert books(root) == {str(root / "orders.csv"): OTHER}
    assert (root / "orders.csv").stat().st_mtime_ns == MTIME_NS + 1


async def test_a_stranger_during_a_copy_is_kept_and_the_copy_too(root: Path, elsewhere: Path) -> None:
    """Replaced after its copy was whole, the version is in the archive and the stranger in its place."""
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", CONTENT)
    disk = HookedDisk(take=Once(swap(root), when=is_source))
    destination = str(elsewhere / "orders.csv")
    assert await move(feed, version, disk) == Moved(destination, stranger=True)
    assert books(root, elsewhere) == {destination: CONTENT, str(root / "orders.csv"): OTHER}


async def test_what_is_replaced_while_it_is_copied_is_not_archived(root: Path, elsewhere: Path) -> None:
    """A file that is written to while it is copied leaves no half copy; it is a stranger."""
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", LARGE)

    def append() -> None:
        with (root / "orders.csv").open("ab") as file:
            file.write(OTHER)

    assert await move(feed, version, HookedDisk(write=Once(append)), LARGE) == Moved(stranger=True)
    assert books(root, elsewhere) == {str(root / "orders.csv"): LARGE + OTHER}


async def test_a_stranger_whose_place_is_taken_gets_a_number(root: Path) -> None:
    """When the path is filled again before the stranger is put back, both are kept side by side."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    disk = HookedDisk(
        take=Once(swap(root, b"first"), when=is_source),
        rename=Once(swap(root, b"second")),
    )
    assert await move(feed, version, disk) == Moved(stranger=True)
    assert books(root) == {str(root / "orders.csv"): b"second", str(root / "orders-1.csv"): b"first"}


@pytest.mark.parametrize("archive", ["archive", "delete"])
async def test_a_file_that_is_open_for_writing_again_stays_where_it_is(root: Path, archive: str) -> None:
    """What is written yet would never be sent, and with `delete` would be nowhere at all."""
    feed = feed_at(root, archive=archive)
    version = drop(feed, "orders.csv", CONTENT)
    with (root / "orders.csv").open("ab", buffering=0) as writer:
        with pytest.raises(DiskTrouble, match="open for writing"):
            await move(feed, version)
        writer.write(OTHER)
    assert await move(feed, version) == Moved(stranger=True)
    assert books(root) == {str(root / "orders.csv"): CONTENT + OTHER}


async def test_a_file_written_to_on_its_way_is_given_back(root: Path) -> None:
    """Where the kernel tells of no writers, a file that has grown when it arrives in the archive goes back."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    with (root / "orders.csv").open("ab", buffering=0) as writer:
        disk = HookedDisk(rename=Once(lambda: writer.write(OTHER)))
        disk.is_written = lambda path: False  # type: ignore[method-assign]
        assert await move(feed, version, disk) == Moved(stranger=True)
    assert books(root) == {str(root / "orders.csv"): CONTENT + OTHER}


async def test_bytes_that_read_differently_are_not_archived(root: Path, elsewhere: Path) -> None:
    """A copy whose MD5 is not that of the bytes sent is dropped, and the source stays."""
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", CONTENT)
    with pytest.raises(DiskTrouble, match="reads differently"):
        await move(feed, version, content=OTHER)
    assert books(root, elsewhere) == {str(root / "orders.csv"): CONTENT}


def scenario(name: str, root: Path, archive: Path) -> tuple[Feed, dict[str, bytes]]:
    """A feed with a drop in its directory, and the books as they must be in the end."""
    settings: dict[str, Any] = {"archive": str(archive / "%Y/%m"), "recursive": True}
    end = archive / "2023/11/sub"
    done = {str(end / "orders.csv"): LARGE}
    match name:
        case "marker":
            settings |= {"ready": Ready.MARKER}
            done |= {str(end / "orders.csv.done"): b"marker"}
        case "collision":
            done = {str(end / "orders.csv"): OTHER, str(end / "orders-1.csv"): OTHER, str(end / "orders-2.csv"): LARGE}
            write(end / "orders.csv", OTHER)
            write(end / "orders-1.csv", OTHER)
        case "clash":
            done = {str(end): OTHER, str(end.with_name("sub-1") / "orders.csv"): LARGE}
            write(end, OTHER)
        case "delete":
            settings |= {"archive": "delete", "ready": Ready.MARKER}
            done = {}
        case "failed":
            settings |= {"failed": str(archive / "2023/11"), "ready": Ready.MARKER}
            done |= {str(end / "orders.csv.done"): b"marker", str(end / "orders.csv.error.json"): b"report"}
    feed = feed_at(root, **settings)
    if feed.ready is Ready.MARKER:
        write(root / "sub/orders.csv.done", b"marker", mtime_ns=MTIME_NS + 5)
    return feed, done


async def act(name: str, archiver: Archiver, feed: Feed, version: FileVersion) -> Moved:
    if name == "failed":
        return await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT)
    return await archiver.move_delivered(feed, 7, version, UPLOADED_AT, md5(LARGE))


async def killed_at(step: int, name: str, feed: Feed, version: FileVersion, disk: Disk | None = None) -> bool:
    """Whether the process died of it."""
    mortal = MortalDisk(step, disk)
    async with archiving(mortal) as archiver:
        try:
            await act(name, archiver, feed, version)
        except PowerCut:
            return True
    return False


def without_reports(found: dict[str, bytes]) -> dict[str, bytes]:
    for path, content in found.items():
        if path.endswith(".error.json"):
            assert json.loads(content)["reason"] == REFUSED.reason
            found[path] = b"report"
    return found


SCENARIOS = ["plain", "marker", "collision", "clash", "delete", "failed"]


@pytest.mark.parametrize("disk", [Disk, old_kernel])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_move_killed_at_any_step_is_finished_by_the_next(
    name: str, disk: Callable[[], Disk], root: Path, archive: Path
) -> None:
    """Killed before any step and repeated, a move ends as if never killed: once, whole, nothing left over."""
    step, died = 0, True
    while died:
        step += 1
        here, there = root / str(step), archive / str(step)
        feed, done = scenario(name, here, there)
        version = drop(feed, "sub/orders.csv", LARGE)
        died = await killed_at(step, name, feed, version, disk())
        async with archiving(disk()) as archiver:
            moved = await act(name, archiver, feed, version)
            assert without_reports(books(here, there)) == done, f"killed before step {step}"
            expected = next((path for path, content in done.items() if content == LARGE), None)
            # A move that was whole and is repeated finds what it did.
            assert moved == Moved(expected)
            assert await act(name, archiver, feed, version) == moved
            assert without_reports(books(here, there)) == done
    assert step > 4


@pytest.mark.parametrize("name", ["marker", "failed"])
async def test_a_move_killed_twice_is_finished_by_the_third(name: str, root: Path, archive: Path) -> None:
    """The repetition may be killed at any step as well."""
    step, died = 0, True
    while died:
        step += 1
        again, died_again = 0, True
        while died_again:
            again += 1
            here, there = root / f"{step}-{again}", archive / f"{step}-{again}"
            feed, done = scenario(name, here, there)
            version = drop(feed, "sub/orders.csv", LARGE)
            died = await killed_at(step, name, feed, version)
            died_again = await killed_at(again, name, feed, version)
            async with archiving() as archiver:
                await act(name, archiver, feed, version)
            assert without_reports(books(here, there)) == done, f"killed before steps {step} and {again}"


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_new_drop_after_the_kill_is_not_touched(name: str, root: Path, archive: Path) -> None:
    """What is dropped at the path before the next start stays there, and no old marker vouches for it."""
    step, died = 0, True
    while died:
        step += 1
        here, there = root / str(step), archive / str(step)
        feed, done = scenario(name, here, there)
        version = drop(feed, "sub/orders.csv", LARGE)
        died = await killed_at(step, name, feed, version)
        source = here / "sub/orders.csv"
        dropped = source.exists()
        copied = [path for path, content in books(there).items() if content == LARGE and "/.tablefeed-" not in path]
        marked = source.with_name("orders.csv.done").exists()
        write(source.with_name("new.tmp"), OTHER, mtime_ns=MTIME_NS + 10)
        os.replace(source.with_name("new.tmp"), source)
        async with archiving() as archiver:
            moved = await act(name, archiver, feed, version)
        assert moved.stranger
        found = without_reports(books(here, there))
        assert found.pop(str(source)) == OTHER
        assert (found.pop(f"{source}.done", None) is not None) == marked
        if dropped and not copied:
            # The producer has overwritten the only one there was: nothing but its marker can have been moved.
            done = {path: content for path, content in done.items() if content not in (LARGE, b"report")}
        done = {path: content for path, content in done.items() if content != b"marker" or not marked}
        assert found == done, f"killed before step {step}"


@pytest.mark.parametrize("disk", [Disk, old_kernel])
@pytest.mark.parametrize("where", ["archive", "delete"])
async def test_a_kill_strands_no_stranger(root: Path, where: str, disk: Callable[[], Disk]) -> None:
    """Killed at any step after a stranger slipped in, it lies at its path again after the next start."""
    step, died = 0, True
    while died:
        step += 1
        here = root / str(step)
        feed = feed_at(here, archive=where)
        version = drop(feed, "orders.csv", LARGE)
        hooked = HookedDisk(disk(), take=Once(swap(here), when=is_source))
        died = await killed_at(step, "plain", feed, version, hooked)
        taken = books(here).get(str(here / "orders.csv")) != LARGE
        moved = await move(feed, version, disk(), LARGE)
        assert books(here) == ({str(here / "orders.csv"): OTHER} if taken else books(here))
        assert moved.stranger == taken
    assert step > 3


async def test_a_kill_while_a_file_is_put_back_leaves_it_one_name(root: Path) -> None:
    """On an old kernel what was taken, found open for writing and half put back ends in the archive, and once."""
    step, died = 0, True
    while died:
        step += 1
        here = root / str(step)
        feed = feed_at(here, ready=Ready.MARKER)
        version = drop(feed, "orders.csv", LARGE)
        write(here / "orders.csv.done", b"marker")
        with (here / "orders.csv").open("ab"):
            mortal = MortalDisk(step, old_kernel())
            with suppress(DiskTrouble, PowerCut):
                await move(feed, version, mortal, LARGE)
            died = mortal.died
        await move(feed, version, old_kernel(), LARGE)
        kept = here / "archive/orders.csv"
        assert books(here) == {str(kept): LARGE, f"{kept}.done": b"marker"}, f"killed before step {step}"


@pytest.mark.parametrize("links", [True, False])
async def test_where_rename_cannot_keep_from_overwriting(root: Path, links: bool) -> None:
    """On an old kernel or file system nothing is overwritten, with hard links and without."""
    feed = feed_at(root)
    write(root / "archive/orders.csv", OTHER)
    moved = await move(feed, drop(feed, "orders.csv", LARGE), old_kernel(links=links), LARGE)
    assert books(root) == {str(root / "archive/orders.csv"): OTHER, str(root / "archive/orders-1.csv"): LARGE}
    assert moved.destination == str(root / "archive/orders-1.csv")


async def test_without_hard_links_a_kill_loses_nothing(root: Path) -> None:
    """Where a name can only be reserved a kill may leave it empty, and no more."""
    step, died = 0, True
    while died:
        step += 1
        feed = feed_at(root / str(step))
        version = drop(feed, "orders.csv", LARGE)
        died = await killed_at(step, "plain", feed, version, old_kernel(links=False))
        await move(feed, version, old_kernel(links=False), LARGE)
        assert [content for content in books(feed.directory).values() if content] == [LARGE]


@pytest.mark.parametrize("links", [True, False])
def test_a_rename_that_is_not_possible_leaves_nothing(root: Path, elsewhere: Path, links: bool) -> None:
    """An old kernel leaves no second and no empty file where a rename fails."""
    write(root / "a.csv", CONTENT)
    with pytest.raises(OSError, match="cross-device"):
        old_kernel(links=links).rename(root / "a.csv", elsewhere / "a.csv")
    assert books(root, elsewhere) == {str(root / "a.csv"): CONTENT}


async def test_two_mounts_of_one_file_system(root: Path) -> None:
    """Where a rename is refused though the devices are equal, the file is copied."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    (root / "archive").mkdir()

    def rename(source: Path, target: Path) -> bool:
        return source.parent != target.parent

    moved = await move(feed, version, HookedDisk(rename=failing(errno.EXDEV, when=rename)))
    assert moved.destination == str(root / "archive/orders.csv")
    assert (root / "archive/orders.csv").stat().st_mtime_ns == MTIME_NS
    assert books(root) == {moved.destination: CONTENT}


async def test_a_copy_is_durable_before_its_source_goes(root: Path, elsewhere: Path) -> None:
    """The copy and its name are synced before the source is taken, and the source's directory after it."""
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", CONTENT)
    steps: list[tuple[str, Path | None]] = []
    disk = HookedDisk(
        seal=lambda *_: steps.append(("seal", None)),
        sync=lambda directory: steps.append(("sync", directory)),
        take=lambda source, _: steps.append(("take", source)),
    )
    await move(feed, version, disk)
    assert steps[:3] == [("seal", None), ("sync", elsewhere), ("take", root / "orders.csv")]
    assert ("sync", root) in steps[3:]


async def test_a_copied_marker_is_durable_before_its_source_goes(root: Path, elsewhere: Path) -> None:
    """A marker's copy has a durable name when the marker is removed."""
    feed = feed_at(root, archive=str(elsewhere), ready=Ready.MARKER)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.done", b"marker")
    steps: list[tuple[str, Path]] = []
    disk = HookedDisk(
        sync=lambda directory: steps.append(("sync", directory)),
        rename=lambda _, target: steps.append(("place", target)),
        unlink=lambda path: steps.append(("unlink", path)),
    )
    await move(feed, version, disk)
    [gone] = [number for number, (_, path) in enumerate(steps) if path.parent == root and "-marker" in path.name]
    placed = max(number for number, step in enumerate(steps) if step == ("place", elsewhere / "orders.csv.done"))
    assert ("sync", elsewhere) in steps[placed:gone]


async def test_new_directories_are_durable(root: Path) -> None:
    """Each directory that was made for the archive is synced into the one above it."""
    feed = feed_at(root, archive="archive/%Y/%m")
    synced: list[Path] = []
    await move(feed, drop(feed, "orders.csv", CONTENT), HookedDisk(sync=synced.append))
    assert set(synced) == {root, root / "archive", root / "archive/2023", root / "archive/2023/11"}


async def test_moves_that_arrive_together_share_their_syncs(root: Path) -> None:
    """A hundred moves sync their two directories once or twice, not a hundred times, and before any returns."""
    feed = feed_at(root)
    versions = [drop(feed, f"{number}.csv", CONTENT) for number in range(100)]
    synced: list[Path] = []
    async with archiving(HookedDisk(sync=synced.append)) as archiver:
        moves = [archiver.move_delivered(feed, number, version, UPLOADED_AT) for number, version in enumerate(versions)]
        moved = await asyncio.gather(*moves)
    assert [end.destination for end in moved] == [str(root / f"archive/{number}.csv") for number in range(100)]
    assert set(synced) == {root, root / "archive"}
    assert len(synced) <= 4


async def test_one_bad_move_fails_alone(root: Path) -> None:
    """Of moves made together only the one whose rename fails gets the error."""
    feed = feed_at(root)
    names = ["a.csv", "b.csv", "c.csv"]
    versions = [drop(feed, name, CONTENT) for name in names]
    disk = HookedDisk(take=failing(errno.EIO, when=lambda source, _: source.name == "b.csv"))
    async with archiving(disk) as archiver:
        moves = [archiver.move_delivered(feed, n, version, UPLOADED_AT) for n, version in enumerate(versions)]
        first, bad, last = await asyncio.gather(*moves, return_exceptions=True)
    assert isinstance(bad, DiskTrouble)
    assert ".tablefeed-" not in str(bad)
    assert (first, last) == (Moved(str(root / "archive/a.csv")), Moved(str(root / "archive/c.csv")))
    assert str(root / "b.csv") in books(root)


async def test_a_failed_sync_is_not_taken_for_success(root: Path) -> None:
    """When a directory cannot be made durable its moves fail, others do not, and the next try finds the file."""
    here, there = feed_at(root / "here"), feed_at(root / "there")
    first, second = drop(here, "a.csv", CONTENT), drop(there, "b.csv", CONTENT)
    broken = HookedDisk(sync=failing(errno.EIO, when=lambda directory: "here" in directory.parts))
    async with archiving(broken) as archiver:
        bad, good = await asyncio.gather(
            archiver.move_delivered(here, 1, first, UPLOADED_AT),
            archiver.move_delivered(there, 2, second, UPLOADED_AT),
            return_exceptions=True,
        )
    assert isinstance(bad, DiskTrouble)
    assert good == Moved(str(root / "there/archive/b.csv"))
    synced: list[Path] = []
    async with archiving(HookedDisk(sync=synced.append)) as archiver:
        moved = await archiver.move_delivered(here, 1, first, UPLOADED_AT)
    assert moved == Moved(str(root / "here/archive/a.csv"))
    assert set(synced) == {root / "here", root / "here/archive"}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskTrouble),
        (errno.EDQUOT, DiskTrouble),
        (errno.EIO, DiskTrouble),
        (errno.ESTALE, DiskTrouble),
        (errno.EROFS, FeedBlocked),
    ],
)
async def test_a_full_or_broken_archive_is_trouble_for_later(
    root: Path, archive: Path, number: int, kind: type[DeliveryError]
) -> None:
    """The error names the place and the cause, the file is back at its path, nothing hidden is left, a retry works.

    One that may only be read blocks the feed: a mount, or what the service's unit lets it write to, has to be mended.
    """
    feed = feed_at(root, archive=str(archive), ready=Ready.MARKER)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.done", b"")
    before = books(root)
    broken = HookedDisk(rename=failing(number, when=lambda _, target: target.parent == archive))
    with pytest.raises(kind) as caught:
        await move(feed, version, broken)
    assert str(archive) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert ".tablefeed-" not in str(caught.value)
    assert books(root, archive) == before
    assert (await move(feed, version)).destination == str(archive / "orders.csv")


async def test_a_disk_that_fills_while_copying(root: Path, elsewhere: Path) -> None:
    """A copy that fails half-way is removed, and its source stays."""
    feed = feed_at(root, archive=str(elsewhere / "kept"))
    version = drop(feed, "orders.csv", LARGE)
    writes: list[int] = []

    def fill(fd: int, chunk: bytes) -> None:
        writes.append(len(chunk))
        if len(writes) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskTrouble, match=r"kept: No space left"):
        await move(feed, version, HookedDisk(write=fill), LARGE)
    assert books(root, elsewhere) == {str(root / "orders.csv"): LARGE}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
async def test_missing_permission_blocks_the_feed(root: Path, number: int) -> None:
    """The error names the directories and the permission that is needed, and the file stays."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    with pytest.raises(FeedBlocked) as caught:
        await move(feed, version, HookedDisk(take=failing(number)))
    assert "write" in caught.value.remedy
    assert str(root) in caught.value.remedy
    assert str(root / "archive") in caught.value.remedy
    assert not caught.value.maybe_file
    assert books(root) == {str(root / "orders.csv"): CONTENT}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
async def test_a_directory_that_may_not_be_changed_is_named(root: Path) -> None:
    """Of the two directories of a move the one without permission is named, and the other is not."""
    feed = feed_at(root, archive=str(root.parent / "kept"))
    version = drop(feed, "orders.csv", CONTENT)
    root.chmod(0o500)
    try:
        with pytest.raises(FeedBlocked) as caught:
            await move(feed, version)
    finally:
        root.chmod(0o700)
    assert f"permission on {root};" in caught.value.remedy


async def test_a_file_in_the_archives_place_blocks_the_feed(root: Path) -> None:
    """An archive that cannot be a directory is a matter for the operator."""
    feed = feed_at(root, archive="archive/%Y")
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "archive", OTHER)
    with pytest.raises(FeedBlocked, match="archive is not a directory"):
        await move(feed, version)
    assert (root / "orders.csv").exists()


async def test_a_directory_of_the_feed_with_the_name_of_an_archived_file_stops_nobody(root: Path) -> None:
    """An export that was one file, and is a directory of parts from then on: it is archived beside that, numbered."""
    feed = feed_at(root, recursive=True)
    await move(feed, drop(feed, "orders.csv", OTHER))
    moved = [await move(feed, drop(feed, f"orders.csv/x/{part}.csv", CONTENT)) for part in (0, 1)]
    assert [it.destination for it in moved] == [str(root / f"archive/orders-1.csv/x/{part}.csv") for part in (0, 1)]
    assert (root / "archive/orders.csv").read_bytes() == OTHER


async def test_the_drop_directory_is_no_archive(root: Path) -> None:
    """An archive that is the drop directory itself, under whatever name, is refused before anything is moved."""
    (root / "link").symlink_to(root)
    feed = feed_at(root, archive="link")
    version = drop(feed, "orders.csv", CONTENT)
    with pytest.raises(FeedBlocked, match="files are dropped in"):
        await move(feed, version)
    assert books(root) == {str(root / "orders.csv"): CONTENT}


async def test_a_linked_archive_is_the_operators_choice(root: Path, tmp_path: Path) -> None:
    """An archive behind a symbolic link is used, with the name that was configured."""
    (tmp_path / "real").mkdir()
    (root / "archive").symlink_to(tmp_path / "real")
    feed = feed_at(root)
    moved = await move(feed, drop(feed, "orders.csv", CONTENT))
    assert moved.destination == str(root / "archive/orders.csv")
    assert books(tmp_path / "real") == {str(tmp_path / "real/orders.csv"): CONTENT}


@pytest.mark.parametrize("known", [True, False])
async def test_a_neighbour_is_not_taken_for_the_file(root: Path, archive: Path, known: bool) -> None:
    """A version that is gone is not found in another file of its family, of the same size and nearly the same mtime."""
    feed = feed_at(root, archive=str(archive))
    version = drop(feed, "orders.csv", CONTENT)
    (root / "orders.csv").unlink()
    write(archive / "orders.csv", CONTENT.swapcase(), mtime_ns=MTIME_NS + 1)
    assert await move(feed, version, content=CONTENT if known else None) == Moved()


async def test_a_copy_that_was_made_is_not_made_again(root: Path, archive: Path) -> None:
    """A whole copy in the archive counts as this file's only when its bytes are the same."""
    feed = feed_at(root, archive=str(archive), failed=str(archive))
    write(archive / "orders.csv", CONTENT.swapcase())
    version = drop(feed, "orders.csv", CONTENT)
    async with archiving() as archiver:
        moved = await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT)
    assert moved.destination == str(archive / "orders-1.csv")
    assert (archive / "orders.csv").read_bytes() == CONTENT.swapcase()
    assert (archive / "orders-1.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("where", ["archive", "delete", "leave"])
async def test_a_missing_directory_is_not_a_missing_file(root: Path, where: str) -> None:
    """While the feed's directory is away, or is an empty mount point, its files do not count as gone."""
    feed = feed_at(root, archive=where)
    version = drop(feed, "orders.csv", CONTENT)
    root.rename(root.with_name("away"))
    with pytest.raises(DiskTrouble, match="is its file system mounted"):
        await move(feed, version)
    root.mkdir()
    with pytest.raises(DiskTrouble, match="is it mounted"):
        await move(feed, replace(version, device=version.device + 1))
    assert await move(feed, version) == Moved()
    assert books(root) == {}


async def test_the_marker_goes_first_and_stays_beside(root: Path, archive: Path) -> None:
    """The marker leaves its name before the file does, and is found beside the file, under its number too."""
    feed = feed_at(root, archive=str(archive), ready=Ready.MARKER, marker_suffix=".ok")
    write(archive / "orders.csv", OTHER)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.ok", b"marker")
    taken: list[str] = []
    disk = HookedDisk(take=lambda source, _: taken.append(source.name))
    assert (await move(feed, version, disk)).destination == str(archive / "orders-1.csv")
    assert taken == ["orders.csv.ok", "orders.csv"]
    assert books(root, archive) == {
        str(archive / "orders.csv"): OTHER,
        str(archive / "orders-1.csv"): CONTENT,
        str(archive / "orders-1.csv.ok"): b"marker",
    }


async def test_a_marker_is_never_overwritten(root: Path) -> None:
    """Another marker in the archive is kept: the file takes a number whose marker has room."""
    feed = feed_at(root, ready=Ready.MARKER)
    write(root / "archive/orders.csv.done", b"old marker")
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.done", b"marker")
    await move(feed, version)
    assert sorted(books(root).values()) == sorted([b"old marker", CONTENT, b"marker"])


async def test_the_marker_of_a_file_that_vanishes_goes_to_the_archive(root: Path) -> None:
    """A marker whose file is gone in the instant of the move vouches for nothing that comes later."""
    feed = feed_at(root, ready=Ready.MARKER)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.done", b"marker")
    disk = HookedDisk(take=Once((root / "orders.csv").unlink, when=is_source))
    assert await move(feed, version, disk) == Moved()
    assert books(root) == {str(root / "archive/orders.csv.done"): b"marker"}


async def test_a_file_without_its_marker_is_moved(root: Path, archive: Path) -> None:
    """A marker that is missing, or is no file, stops nothing."""
    feed = feed_at(root, archive=str(archive), ready=Ready.MARKER)
    version = drop(feed, "orders.csv", CONTENT)
    (root / "orders.csv.done").mkdir()
    assert (await move(feed, version)).destination == str(archive / "orders.csv")
    assert (root / "orders.csv.done").is_dir()


@pytest.mark.parametrize(("age", "kept"), [(-10, False), (10, True)])
async def test_a_marker_stays_with_a_stranger_only_if_it_can_be_its_own(root: Path, age: int, kept: bool) -> None:
    """An old marker does not vouch for what replaced its file; one that was made after that stays with it."""
    feed = feed_at(root, ready=Ready.MARKER)
    version = drop(feed, "orders.csv", CONTENT)
    write(root / "orders.csv.done", b"marker")
    made = (root / "orders.csv.done").stat().st_ctime_ns

    def producer() -> None:
        write(root / "new.tmp", OTHER, mtime_ns=made - age)
        os.replace(root / "new.tmp", root / "orders.csv")

    assert await move(feed, version, HookedDisk(take=Once(producer, when=is_source))) == Moved(stranger=True)
    place = root / "orders.csv.done" if kept else root / "archive/orders.csv.done"
    assert books(root) == {str(root / "orders.csv"): OTHER, str(place): b"marker"}


async def test_a_refused_file_lies_beside_its_reason(root: Path, archive: Path) -> None:
    """`failed/` holds the file and a readable report that nobody may read who may not read the file."""
    feed = feed_at(root, failed=str(archive), recursive=True)
    version = drop(feed, "north/orders.csv", CONTENT, mode=0o750)
    async with archiving() as archiver:
        moved = await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT)
    assert moved == Moved(str(archive / "north/orders.csv"))
    report = archive / "north/orders.csv.error.json"
    assert stat.S_IMODE(report.stat().st_mode) == 0o640
    assert json.loads(report.read_bytes()) == {
        "file": str(root / "north/orders.csv"),
        "feed": "orders",
        "datatable_id": "table-1",
        "reason": REFUSED.reason,
        "remedy": REFUSED.remedy,
        "size": len(CONTENT),
        "mtime": "2023-11-14T22:13:19.123000+00:00",
        "refused_at": "2023-11-14T22:13:20+00:00",
        "to_try_again": "tablefeed retry 7",
    }


async def test_a_report_is_never_overwritten(root: Path) -> None:
    """A second refused file of a name gets a number, with its own report, also where only a report lies."""
    feed = feed_at(root)
    write(root / "failed/orders.csv.error.json", b"kept by hand")
    async with archiving() as archiver:
        for number in (1, 2):
            version = drop(feed, "orders.csv", CONTENT * number)
            moved = await archiver.set_aside(feed, number, version, REFUSED, UPLOADED_AT)
            assert moved.destination == str(root / f"failed/orders-{number}.csv")
    assert (root / "failed/orders.csv.error.json").read_bytes() == b"kept by hand"
    assert json.loads((root / "failed/orders-2.csv.error.json").read_bytes())["size"] == len(CONTENT) * 2
    assert len(books(root)) == 5


async def test_a_lost_report_is_written_again(root: Path) -> None:
    """A repeated move that finds its file without the report writes that anew, and only then."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    report = root / "failed/orders.csv.error.json"
    async with archiving() as archiver:
        moved = await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT)
        written = report.read_bytes()
        report.unlink()
        assert await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT) == moved
        assert report.read_bytes() == written
        await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT + 5)
    assert books(root) == {str(root / "failed/orders.csv"): CONTENT, str(report): written}


async def test_a_refused_file_stays_when_its_report_cannot_be_written(root: Path) -> None:
    """On a full disk the file is not moved without its reason."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    async with archiving(HookedDisk(write=failing(errno.ENOSPC))) as archiver:
        with pytest.raises(DiskTrouble):
            await archiver.set_aside(feed, 7, version, REFUSED, UPLOADED_AT)
    assert (root / "orders.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("name", [b"n\xe4me.csv", b"\xff" * 255, "ä".encode() * 127, b"x" * 251 + b".csv"])
async def test_any_name_can_be_set_aside(root: Path, archive: Path, name: bytes) -> None:
    """A name that is not UTF-8, or as long as may be, gets a report of valid UTF-8 beside it."""
    feed = feed_at(root, failed=str(archive))
    version = drop(feed, os.fsdecode(name), CONTENT)
    async with archiving() as archiver:
        moved = await archiver.set_aside(feed, 7, version, replace_path(os.fsdecode(name)), UPLOADED_AT)
    assert moved.destination is not None
    assert Path(moved.destination).read_bytes() == CONTENT
    text = Path(moved.destination + ".error.json").read_bytes().decode("utf-8")
    assert json.loads(text)["file"].endswith(name.decode("utf-8", "backslashreplace"))
    assert len(books(root, archive)) == 2


def replace_path(path: str) -> FileRefused:
    return FileRefused(path, f"the name {path} is not UTF-8", "Rename it")


async def test_copies_hold_up_no_rename(root: Path, elsewhere: Path) -> None:
    """While copies run, two at a time, renames go on."""
    far, near = feed_at(root / "far", archive=str(elsewhere)), feed_at(root / "near")
    versions = [drop(far, f"{number}.csv", CONTENT) for number in range(4)]
    barrier = Barrier()
    async with archiving(HookedDisk(write=barrier)) as archiver:
        copies = [
            asyncio.create_task(archiver.move_delivered(far, number, version, UPLOADED_AT))
            for number, version in enumerate(versions)
        ]
        await asyncio.to_thread(barrier.await_held, 2)
        moved = await archiver.move_delivered(near, 9, drop(near, "a.csv", CONTENT), UPLOADED_AT)
        assert moved.destination == str(root / "near/archive/a.csv")
        assert barrier.held == 2
        assert not any(copy.done() for copy in copies)
        barrier.open()
        ends = await asyncio.gather(*copies)
    assert [end.destination for end in ends] == [str(elsewhere / f"{number}.csv") for number in range(4)]


async def held_up(archiver: Archiver, feed: Feed, version: FileVersion, barrier: Barrier) -> asyncio.Task[Moved]:
    """A copy that has begun, and goes on when the barrier is open."""
    copy = asyncio.create_task(archiver.move_delivered(feed, 7, version, UPLOADED_AT))
    await asyncio.to_thread(barrier.await_held, 1)
    return copy


async def test_close_cuts_off_copies(root: Path, elsewhere: Path) -> None:
    """The end of the daemon waits for no long copy: that is dropped, and its file stays for the next start."""
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", LARGE)
    barrier = Barrier()
    async with archiving(HookedDisk(write=barrier)) as archiver:
        copy = await held_up(archiver, feed, version, barrier)
        closing = asyncio.create_task(archiver.close())
        await asyncio.sleep(0)
        barrier.open()
        with pytest.raises(DiskTrouble, match="cut off"):
            await copy
        await closing
    assert books(root, elsewhere) == {str(root / "orders.csv"): LARGE}


async def test_no_thread_of_a_move_is_waited_for_when_the_process_ends(root: Path, elsewhere: Path) -> None:
    """One that a share holds up for ever would keep a daemon that has ended from going away."""
    feed = feed_at(root, archive=str(elsewhere))
    before = {*threading.enumerate()}
    archivers = Archivers(lambda _: True)
    await archivers("orders").move_delivered(feed, 7, drop(feed, "orders.csv", CONTENT), UPLOADED_AT)
    own = ("move-orders", "copy")
    threads = {it.name: it.daemon for it in {*threading.enumerate()} - before if it.name.startswith(own)}
    await archivers.close()
    assert set(threads.values()) == {True}
    assert len(threads) == 2
    assert books(root, elsewhere) == {str(elsewhere / "orders.csv"): CONTENT}


@pytest.mark.parametrize("step", ["write", "seal"])
async def test_a_copy_ends_where_another_node_has_its_file(root: Path, elsewhere: Path, step: str) -> None:
    """A node that stood still in the midst of it goes on while another copies, to a file of the same hidden name.

    It neither puts the half of a copy into the archive, nor removes that or the file.
    """
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", LARGE)
    other_at_it, other = Barrier(), HookedDisk(write=Once(lambda: other_at_it()))
    with ThreadPoolExecutor(1) as elsewhere_too:
        others: list[Future[Moved]] = []

        def stand_still() -> None:
            others.append(elsewhere_too.submit(lambda: asyncio.run(move(feed, version, other, LARGE))))
            other_at_it.await_held(1)

        disk = HookedDisk(None, **{step: Once(stand_still)})
        try:
            async with archiving(disk, holds=lambda _: not others) as archiver:
                with pytest.raises(DiskTrouble, match="its lease may be over"):
                    await archiver.move_delivered(feed, 7, version, UPLOADED_AT, md5(LARGE))
        finally:
            other_at_it.open()
    assert others[0].result().destination == str(elsewhere / "orders.csv")
    assert books(root, elsewhere) == {str(elsewhere / "orders.csv"): LARGE}
    assert (elsewhere / "orders.csv").stat().st_mtime_ns == version.mtime_ns


async def test_a_copy_that_nobody_waits_for_is_dropped(root: Path, elsewhere: Path) -> None:
    """Its work was broken off, since its lease was found to be over; a new one says nothing of what was done before."""
    feed = feed_at(root, archive=str(elsewhere))
    version = drop(feed, "orders.csv", LARGE)
    barrier = Barrier()
    async with archiving(HookedDisk(write=barrier)) as archiver:
        copy = await held_up(archiver, feed, version, barrier)
        copy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copy
        barrier.open()
        await asyncio.to_thread(archiver._copies.shutdown)
    assert books(root, elsewhere) == {str(root / "orders.csv"): LARGE}


@pytest.mark.parametrize("where", ["archive", "delete"])
async def test_a_producer_that_never_rests_loses_nothing(root: Path, tmp_path: Path, where: str) -> None:
    """While a path is refilled all the time, every drop is archived, deleted as asked, or still with its producer."""
    feed = feed_at(root, archive=where)
    with Producer(root / "orders.csv", tmp_path / "hands") as producer:
        removed = await besiege(feed, producer, 300)
    assert producer.made == sorted([*books(tmp_path).values(), *removed])


async def test_a_producer_loses_nothing_to_a_copy(root: Path, tmp_path: Path, elsewhere: Path) -> None:
    """The same holds while its files are copied to another file system."""
    feed = feed_at(root, archive=str(elsewhere))
    with Producer(root / "orders.csv", tmp_path / "hands") as producer:
        await besiege(feed, producer, 150)
    # What the producer took back after it was copied is there twice, and no loss.
    assert producer.made == sorted(set(books(tmp_path, elsewhere).values()))


async def besiege(feed: Feed, producer: Producer, rounds: int) -> list[bytes]:
    """Move what lies at the path again and again, and check what was archived; returns what was removed for good."""
    removed: list[bytes] = []
    disk = HookedDisk(unlink=lambda path: removed.append(path.read_bytes()) if path.parent == feed.directory else None)
    ends: dict[str, bytes] = {}
    async with archiving(disk) as archiver:
        for number in range(rounds):
            found, content = await asyncio.to_thread(producer.await_drop)
            version = FileVersion.of(feed.name, "orders.csv", found)
            before = len(removed)
            moved = await archiver.move_delivered(feed, number, version, UPLOADED_AT, md5(content))
            assert removed[before:] in ([], [content])
            if moved.destination:
                ends[moved.destination] = content
    producer.stop()
    archive = feed.directory / feed.archive
    assert books(archive) == ends
    return removed


def test_only_the_version_itself_is_copied(root: Path) -> None:
    """What replaces a file before its copy begins, be it a file, a link or a pipe, is not read."""
    feed = feed_at(root)
    version = drop(feed, "orders.csv", CONTENT)
    source, target = root / "orders.csv", root / "copy"
    write(target, b"left over by a copy that was killed")
    assert copy(Disk(), source, target, version, lambda: True) == md5(CONTENT)
    assert target.read_bytes() == CONTENT
    target.unlink()
    source.rename(root / "aside")
    replacements: list[Callable[[], object]] = [
        lambda: write(source, CONTENT),
        lambda: source.symlink_to("aside"),
        lambda: os.mkfifo(source),
    ]
    for replacement in replacements:
        replacement()
        with pytest.raises(Replaced):
            copy(Disk(), source, target, version, lambda: pytest.fail("it was read"))
        source.unlink()
    assert not target.exists()
