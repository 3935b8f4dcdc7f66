"""`tablefeed retry`: refused files go back into the queue."""

import os
import sys
from itertools import chain
from typing import Annotated

import typer

from tablefeed.cli.check import plural
from tablefeed.cli.history import shown
from tablefeed.cli.options import Config
from tablefeed.config import load, to_feeds
from tablefeed.errors import Exit
from tablefeed.ledger.records import opened
from tablefeed.recovery import Choice, chosen, put_back


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
        found, done = chosen(records, Choice(ids or (), feed))
        none = not found and not done
        failed = count = 0
        for returned in chain(done, put_back(records, feeds, found)):
            if returned.problem:
                failed += 1
                sys.stderr.write(f"{returned.id}: {shown(returned.problem)}\n")
            else:
                count += 1
                sys.stdout.write(f"{returned.id}: {returned.feed}/{shown(returned.path)} is tried again\n")
    sys.stdout.write("No refused file is there.\n" if none else f"{plural(count, 'file')} put back.\n")
    sys.exit(Exit.UNDELIVERED if failed else Exit.DONE)
