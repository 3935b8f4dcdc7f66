"""What the ledger and the configuration tell of the feeds while no daemon can be asked."""

import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tablefeed import __version__
from tablefeed.cli.looking import Daemon
from tablefeed.cli.words import plural
from tablefeed.config import FeedSettings, Settings, load
from tablefeed.fleetstatus import NODES_SHOWN, feeds_of_all, fleet_status, troubles_of
from tablefeed.history import trouble_of
from tablefeed.joining import node_of
from tablefeed.ledger.census import Census, Delivered
from tablefeed.ledger.engine import sqlite_file
from tablefeed.ledger.records import Records, opened
from tablefeed.model import printable
from tablefeed.status import FeedStatus, FileTrouble, Kind, Snapshot, Trouble, stale_since, state_of
from tablefeed.tally import midnight
from tablefeed.telling import plain, states_of
from tablefeed.units import format_duration

SHOWN = 50
"""Files with trouble that are listed."""


def ledger_snapshot(config: Path | None, environ: Mapping[str, str], daemon: Daemon) -> dict[str, Any]:
    """The snapshot in plain values, like the daemon's, without what only a running one knows.

    Raises Fatal when the configuration has errors or the ledger cannot be read.
    """
    settings = load(config, environ)
    now = round(time.time() * 1000)
    path = sqlite_file(settings.ledger.url)
    if path is None or path.exists():
        with opened(settings.ledger.url) as records:
            snapshot = _of(settings, records, now, runs=daemon.runs)
        others = sum(node.living and not node.here for node in snapshot.fleet.nodes)
        told = [feed for feed in snapshot.feeds if any(trouble.node for trouble in feed.troubles)]
        at_work = [f"{plural(others, 'other node')} of its fleet at work"] if others else []
        headline = "; ".join([_headline(daemon), *at_work, *states_of(told)])
    else:
        feeds = tuple(_feed(feed, "", Census(), [], now, runs=daemon.runs) for feed in settings.feeds)
        problem = f"there is no ledger {path} yet"
        snapshot = replace(_bare(feeds, (), now), ledger_problem=problem)
        headline = f"{_headline(daemon)}, and {problem}"
    values = plain(snapshot)
    return values | {"ok": False, "headline": headline, "pid": daemon.process, "started_at": None, "hour": []}


def _headline(daemon: Daemon) -> str:
    if not daemon.runs:
        return daemon.reason
    return f"a daemon runs (process {daemon.process or 'unknown'}), but {daemon.reason}"


def _bare(feeds: tuple[FeedStatus, ...], files: tuple[FileTrouble, ...], now: int) -> Snapshot:
    return Snapshot(__version__, socket.gethostname(), 0, now, now, feeds=feeds, files=files)


def _today(delivered: list[Delivered], feed: str) -> tuple[int, int]:
    mine = [one for one in delivered if one.feed == feed]
    return sum(one.files for one in mine), sum(one.bytes for one in mine)


def _of(settings: Settings, records: Records, now: int, *, runs: bool) -> Snapshot:
    census = records.census(now)
    today = records.delivered_between(midnight(now / 1000), now + 1)
    here = node_of(settings)
    fleet = fleet_status(records.muster(NODES_SHOWN, here), here)
    runs = runs or fleet.living > 0
    told = troubles_of(node for node in fleet.nodes if node.here)
    own = [_feed(feed, here, census, today, now, told.get(feed.name, ()), runs=runs) for feed in settings.feeds]
    feeds = feeds_of_all(own, fleet, census, partial(_today, today))
    bare = _bare(feeds, tuple(trouble_of(record, now) for record in records.troubled(SHOWN)), now)
    return replace(bare, fleet=fleet, node=here or bare.node)


def _feed(
    feed: FeedSettings,
    node: str,
    census: Census,
    delivered: list[Delivered],
    now: int,
    told: tuple[Trouble, ...] = (),
    *,
    runs: bool,
) -> FeedStatus:
    """A feed of the configuration; `node`: this one; `told`: what its daemon has told the others of it."""
    open_files = census.backlogs(feed.name)
    queued, sending = open_files.queued, open_files.uploading
    record = census.feeds.get(("" if feed.shared else node, feed.name))
    troubles = (*told, *(_stale(feed, record.arrived_at, record.known_at, now) if record else ()))
    today, bytes_today = _today(delivered, feed.name)
    paused_at = record.paused_at if record else None
    oldest = open_files.oldest_undelivered_at
    return FeedStatus(
        name=feed.name,
        directory=printable(feed.directory),
        datatable_id=feed.datatable_id,
        state=state_of(paused_at, troubles),
        # What a daemon had claimed when it ended goes on from the queue at the next start.
        queued=queued.count + (0 if runs else sending.count),
        queued_bytes=queued.bytes + (0 if runs else sending.bytes),
        uploading=sending.count if runs else 0,
        archiving=open_files.uploaded.count,
        retrying=open_files.failing,
        refused=census.refused.get(feed.name, 0),
        delivered_today=today,
        bytes_today=bytes_today,
        oldest_queued_at=queued.oldest_at if runs else oldest,
        oldest_undelivered_at=oldest,
        next_try_at=open_files.next_try_at,
        last_arrival_at=record.arrived_at if record else None,
        last_delivery_at=record.delivered_at if record else None,
        expect_every=feed.expect_every or None,
        paused_at=paused_at,
        troubles=troubles,
    )


def _stale(feed: FeedSettings, arrived_at: int | None, known_at: int, now: int) -> list[Trouble]:
    since = stale_since(feed.expect_every, arrived_at, known_at, now)
    if since is None:
        return []
    reason = f"no file is known to have arrived for longer than expect_every ({format_duration(feed.expect_every)})"
    return [Trouble(Kind.STALE, reason, "", since)]
