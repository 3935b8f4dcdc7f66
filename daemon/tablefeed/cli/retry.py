"""`tablefeed retry`: refused files go back into the queue."""

import os
import sys
from itertools import chain
from pathlib import Path

import typer

from tablefeed.cli.words import plural, shown
from tablefeed.config import load, to_feeds
from tablefeed.errors import Exit
from tablefeed.joining import node_of
from tablefeed.ledger.records import opened
from tablefeed.recovery import Choice, chosen, put_back


def retry(config: Path | None, ids: list[int] | None, feed: str | None, *, every: bool) -> None:
    """Put them back one by one, and say so; ends with 1 when a file could not be put back."""
    if sum((bool(ids), feed is not None, every)) != 1:
        raise typer.BadParameter("name files by their ids, or give --feed FEED, or --all")
    settings = load(config, os.environ)
    feeds = {it.name: it for it in to_feeds(settings, os.environ)}
    if feed is not None and feed not in feeds:
        names = ", ".join(feeds)
        raise typer.BadParameter(f"the configuration has no feed {feed}; it has {names}", param_hint="--feed")
    with opened(settings.ledger.url) as records:
        found, done = chosen(records, Choice(ids or (), feed))
        none = not found and not done
        failed = count = 0
        for returned in chain(done, put_back(records, feeds, found, node_of(settings))):
            if returned.problem:
                failed += 1
                sys.stderr.write(f"{returned.id}: {shown(returned.problem)}\n")
            else:
                count += 1
                sys.stdout.write(f"{returned.id}: {returned.feed}/{shown(returned.path)} is tried again\n")
    sys.stdout.write("No refused file is there.\n" if none else f"{plural(count, 'file')} put back.\n")
    sys.exit(Exit.UNDELIVERED if failed else Exit.DONE)
