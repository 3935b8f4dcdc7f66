"""`tablefeed history`: what happened to each file."""

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "WHEN", *(["NODE", "SENDER"] if with_nodes else []), "FEED", "STATE", "SIZE", "FILE", "WHAT"):
        table.add_column(name, justify="right" if name in ("ID", "SIZE") else "left", overflow="fold")
    for record in records:
        when = datetime.fromtimestamp(record.changed_at / 1000).astimezone()
        table.add_row(
            str(record.id),
            when.strftime("%Y-%m-%d %H:%M:%S"),
            *([Text(shown(record.node) or "shared"), Text(shown(record.sender or ""))] if with_nodes else []),
            record.feed,
            Text(record.state, style=_COLORS.get(State(record.state), "")),
            format_size(record.size),
            Text(shown(record.path)),
            Text(shown(what(record))),
        )
    Output(soft_wrap=True).print(table)
