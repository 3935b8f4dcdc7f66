"""`tablefeed history`: what happened to each file."""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tablefeed.cli.commands.history import SHOWN
from tablefeed.cli.console import Output
from tablefeed.cli.options import parsed
from tablefeed.cli.words import shown
from tablefeed.config import load
from tablefeed.history import plain, what
from tablefeed.ledger.engine import sqlite_file
from tablefeed.ledger.records import Record, Search, opened
from tablefeed.model import State
from tablefeed.units import format_size, parse_moment

_COLORS = {State.ARCHIVED: "green", State.REJECTED: "red", State.SKIPPED: "cyan", State.GONE: "dim"}

_ENDLESS = 1_000_000
"""Columns of a terminal on which nothing is folded."""
_ROOM = 60
"""Columns that what happened needs, to be read beside the rest: a reason is a sentence or two."""


def history(
    config: Path | None,
    *,
    feed: str | None,
    state: State | None,
    since: str | None,
    node: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Print the records that fit."""
    after = None if since is None else parsed("--since", lambda text: parse_moment(text, time.time()), since)
    settings = load(config, os.environ)
    search = Search(feed, state, None if after is None else round(after * 1000), node=node)
    with opened(settings.ledger.url) as records:
        if as_json:
            for record in records.find(search, limit):
                sys.stdout.write(json.dumps(plain(record), ensure_ascii=False) + "\n")
            return
        found = records.find(search, limit or SHOWN)
        more = records.count(search) - len(found)
    if found:
        _show(found, with_nodes=sqlite_file(settings.ledger.url) is None)
    else:
        known = feed is None or feed in {known.name for known in settings.feeds}
        names = ", ".join(it.name for it in settings.feeds)
        hint = "" if known else f"; the configuration has no feed {feed}, it has {names}"
        sys.stderr.write(f"nothing is recorded{' that fits' if search != Search() else ''}{hint}\n")
    if more:
        sys.stderr.write(f"{more} older ones are not shown: see them with --limit {len(found) + more}\n")


def _show(records: list[Record], *, with_nodes: bool) -> None:
    output = Output(soft_wrap=True)
    output.print(fitting(records, output, with_nodes=with_nodes))


def fitting(records: list[Record], console: Console, *, with_nodes: bool) -> Table:
    """The records as a table: what happened has a column of its own where the terminal is wide enough for it."""
    wide = _table(records, "WHAT", with_nodes=with_nodes)
    wide.columns[-1].max_width = _ROOM
    needed = console.measure(wide, options=console.options.update(max_width=_ENDLESS)).maximum
    wide.columns[-1].max_width = None
    if needed <= console.width:
        return wide
    return _table(records, with_nodes=with_nodes)


def _table(records: list[Record], *more: str, with_nodes: bool) -> Table:
    """With `more`, a last column of that name; without it what happened stands below the file."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "WHEN", *(["NODE", "SENDER"] if with_nodes else []), "FEED", "STATE", "SIZE", "FILE", *more):
        short = name in ("ID", "STATE", "SIZE")
        table.add_column(name, justify="right" if name in ("ID", "SIZE") else "left", overflow="fold", no_wrap=short)
    for record in records:
        when = datetime.fromtimestamp(record.changed_at / 1000).astimezone()
        path, happened = Text(shown(record.path)), Text(shown(what(record)))
        table.add_row(
            str(record.id),
            when.strftime("%Y-%m-%d %H:%M:%S"),
            *([Text(shown(record.node) or "shared"), Text(shown(record.sender or ""))] if with_nodes else []),
            record.feed,
            Text(record.state, style=_COLORS.get(State(record.state), "")),
            format_size(record.size),
            *([path, happened] if more else [Text("\n").join([path, happened]) if happened else path]),
        )
    return table
