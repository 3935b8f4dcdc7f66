"""A writer that opened the file before it was taken, and is done before anybody asks who writes it."""

from pathlib import Path

import pytest

from support.archive import UPLOADED_AT, HookedDisk, Once, archiving, books, drop, feed_at, other_file_system
from tablefeed.errors import DiskTrouble
from tablefeed.model import Feed


@pytest.mark.parametrize("archive", ["archive", "delete", "elsewhere"])
async def test_what_is_written_while_the_file_is_taken_is_not_lost(tmp_path: Path, archive: str) -> None:
    """It is put back, to be sent as another version."""
    with other_file_system(tmp_path) as far:
        feed = feed_at(tmp_path / "drop", archive=str(far) if archive == "elsewhere" else archive)
        await _write_while_taken(feed)


async def _write_while_taken(feed: Feed) -> None:
    version = drop(feed, "a.csv", b"sent")
    with (feed.directory / "a.csv").open("ab", buffering=0) as writer:

        def write() -> None:
            writer.write(b" and more")
            writer.close()

        async with archiving(HookedDisk(is_written=Once(write))) as archiver:
            for _ in range(2):
                try:
                    moved = await archiver.move_delivered(feed, 1, version, UPLOADED_AT)
                except DiskTrouble:
                    continue
                break
    assert writer.closed
    assert moved.stranger
    assert books(feed.directory)[str(feed.directory / "a.csv")] == b"sent and more"
