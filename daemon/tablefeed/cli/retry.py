"""`tablefeed retry`: refused files go back into the queue."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tablefeed.archive.moves import Disk
from tablefeed.archive.restore import restore
from tablefeed.cli.check import plural
from tablefeed.cli.history import shown
from tablefeed.cli.options import Config
from tablefeed.config import load, to_feeds
from tablefeed.errors import Exit, NotRestored
from tablefeed.ledger.records import Record, Records, Search, opened
from tablefeed.model import Feed, State


def retry(
    config: Config = None,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="ID…", help="Files by their ids, as `tablefeed history` shows them.")
    ] = None,
    feed: Annotated[str | None, typer.Option(help="All refused files of this feed.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All refused files.")] = False,
) -> None:
    """Put refused files back to where they were dropped, so that they are tried again.

    The daemon may run or not. Ends with 1 when a file could not be put back.
    """
    if sum((bool(ids), feed is not None, every)) != 1:
        raise typer.BadParameter("name files by their ids, or give --feed FEED, or --all")
    settings = load(config, os.environ)
    feeds = {it.name: it for it in to_feeds(settings, os.environ)}
    if feed is not None and feed not in feeds:
        names = ", ".join(feeds)
        raise typer.BadParameter(f"the configuration has no feed {feed}; it has {names}", param_hint="--feed")
    with opened(settings.ledger.url) as records:
        problems = list(_retry_all(records, feeds, ids, feed))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.exit(Exit.UNDELIVERED if problems else Exit.DONE)


def _retry_all(records: Records, feeds: dict[str, Feed], ids: list[int] | None, feed: str | None) -> Iterator[str]:
    """Put them back one by one, and say so; gives what went wrong."""
    if ids:
        found = records.find(Search(ids=ids))
        yield from (f"{entry_id}: there is no such file in the ledger" for entry_id in {*ids} - {it.id for it in found})
    else:
        found = records.find(Search(feed=feed, state=State.REJECTED))
        found = [record for record in found if record.destination or record.left_in_place]
    count = 0
    for record in found:
        problem = _retry(records, feeds, record)
        if problem:
            yield f"{record.id}: {problem}"
        else:
            count += 1
            sys.stdout.write(f"{record.id}: {record.feed}/{shown(record.path)} is tried again\n")
    sys.stdout.write(f"{plural(count, 'file')} put back.\n" if found or ids else "No refused file is there.\n")


def _retry(records: Records, feeds: dict[str, Feed], record: Record) -> str | None:
    if record.state != State.REJECTED:
        return f"{record.feed}/{shown(record.path)} is {record.state}; only rejected files can be tried again"
    if not record.destination and not record.left_in_place:
        return f"{record.feed}/{shown(record.path)} has been put back before"
    if record.feed not in feeds:
        return f"its feed {record.feed} is not configured any more: add it again, or move the file by hand"
    destination = Path(record.destination) if record.destination else None
    try:
        restore(feeds[record.feed], record.id, record.version, destination, Disk())
    except NotRestored as error:
        return shown(str(error))
    records.let_go(record.id)
    return None
