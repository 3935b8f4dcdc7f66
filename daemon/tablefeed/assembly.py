"""Builds the parts of the daemon from the settings, and ties them together."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from tablefeed.alerts import Alerts
from tablefeed.announce import Pausing
from tablefeed.clock import on_wall, steady
from tablefeed.config import Settings
from tablefeed.credentials import FileKey
from tablefeed.disks import Disks
from tablefeed.dispatch import Dispatcher, Hooks
from tablefeed.fleet import Fleet
from tablefeed.freshness import Freshness
from tablefeed.gates import Gates
from tablefeed.housekeeping import Housekeeper
from tablefeed.intake import Hooks as IntakeHooks
from tablefeed.intake import Intake
from tablefeed.joining import know, make_fleet, make_listener, others_of
from tablefeed.ledger import Ledger
from tablefeed.ledger.engine import sqlite_file
from tablefeed.ledger.listener import Listener
from tablefeed.ledger.reader import Reader
from tablefeed.links import Inbox, Links, Unusable, places, still_there
from tablefeed.means import Means
from tablefeed.metrics import Metrics
from tablefeed.model import Feed
from tablefeed.news import News
from tablefeed.notices import Notices
from tablefeed.notify import Sender
from tablefeed.obstacles import Obstacles
from tablefeed.opening import WEBHOOKS, opened
from tablefeed.others import NOBODY, Others
from tablefeed.outcomes import Outcomes
from tablefeed.pauses import Pauses
from tablefeed.pipeline import Pipeline, Ports
from tablefeed.presign import Presigner
from tablefeed.pulse import Pulse
from tablefeed.refusals import Refusals
from tablefeed.roster import Roster
from tablefeed.slots import FairSlots, Share
from tablefeed.tally import Tally
from tablefeed.throttle import Throttle
from tablefeed.webhook import Poster

log = structlog.get_logger("service")


@dataclass(frozen=True, slots=True)
class Parts:
    """The daemon, built and not yet running."""

    feeds: Mapping[str, Feed]
    ledger: Ledger
    pipeline: Pipeline
    dispatcher: Dispatcher
    slots: FairSlots
    throttle: Throttle
    gates: Gates
    intakes: Mapping[str, Intake]
    """By the name of the feed, as `feeds`; both change with a reload."""
    roster: Roster[Intake]
    refusals: Refusals
    housekeeper: Housekeeper
    troubles: Mapping[str, Unusable]
    """Feeds whose directory cannot be read now, with the reason of each."""
    obstacles: Obstacles
    pauses: Pauses
    webhooks: Sender
    freshness: Freshness
    fleet: Fleet | None
    """None: the ledger is this daemon's alone."""
    listener: Listener | None
    news: News
    tally: Tally
    reader: Reader
    metrics: Metrics
    pulse: Pulse
    disks: Disks
    changed: asyncio.Event
    """Set after each file that ended, and when a directory cannot be used."""


@asynccontextmanager
async def assembled(settings: Settings, feeds: Sequence[Feed], keys: Mapping[str, FileKey]) -> AsyncIterator[Parts]:
    """The daemon's parts, with an open ledger; at the end what they hold is put back and closed.

    `keys` maps `ApiAccess.key_name` to keys. Raises Fatal when a part cannot be built.
    """
    async with opened(settings, keys) as means:
        parts = _connected(means, feeds)
        await know(means.ledger, feeds)
        for record in await means.ledger.feed_records():
            if record.paused_at is not None:
                parts.pauses.restore(record.name, record.paused_at)
        yield parts


def _connected(means: Means, feeds: Sequence[Feed]) -> Parts:
    by_name = {feed.name: feed for feed in feeds}
    links = Links(time.time)
    news = News()
    tally = Tally(time.time)
    presigner = means.presigner()
    node = means.ledger.node
    notices = Notices(node or socket.gethostname(), presigner.known_dataset, clock=time.time, teller=node)
    pauses = Pauses(Pausing(by_name, means.ledger, notices, links.told), links.queued, clock=time.time)
    gates = _gates(feeds)
    slots = FairSlots(means.settings.upload.concurrency, partial(_share, by_name), clock=steady, grown=links.queued)
    outcomes = Outcomes(gates, news, node)
    refusals = Refusals(by_name, means.ledger, means.archivers, outcomes, notices, links.look, wall=time.time)
    pipeline = _pipeline(means, by_name, slots, outcomes, links, presigner, notices, refusals)
    links.dispatcher = dispatcher = _dispatcher(means, by_name, slots, gates, links, pipeline, pauses)
    alerts = Alerts(by_name, means.ledger, notices, links)
    links.webhooks = webhooks = alerts.webhooks(
        Poster(means.webhooks), means.keys, slots=WEBHOOKS, keep=means.settings.ledger.history_keep
    )
    freshness = alerts.freshness()
    obstacles = Obstacles(links.troubles, gates, on_wall(time.time, steady))
    for listener in (tally.note, means.metrics.note, alerts.announcer.note, webhooks.note, freshness.note):
        news.listen(listener)
    return Parts(
        feeds=by_name,
        ledger=means.ledger,
        pipeline=pipeline,
        dispatcher=dispatcher,
        slots=slots,
        throttle=means.throttle,
        gates=gates,
        intakes=links.intakes,
        roster=_roster(means, by_name, Inbox(means.ledger, refusals, news), dispatcher, gates, links),
        refusals=refusals,
        housekeeper=_housekeeper(means, by_name, refusals),
        troubles=links.troubles,
        obstacles=obstacles,
        pauses=pauses,
        webhooks=webhooks,
        freshness=freshness,
        fleet=make_fleet(means, by_name, dispatcher, links, pauses, obstacles),
        listener=make_listener(means, dispatcher, links, pauses),
        news=news,
        tally=tally,
        reader=means.reader,
        metrics=means.metrics,
        pulse=Pulse(time.monotonic, asyncio.sleep, means.metrics.lagged),
        disks=Disks(partial(places, sqlite_file(means.settings.ledger.url), by_name), asyncio.sleep),
        changed=links.changed,
    )


def _gates(feeds: Sequence[Feed]) -> Gates:
    gates = Gates(steady, random.random)
    for feed in feeds:
        gates.relate(feed.name, feed.api.origin)
    return gates


def _pipeline(
    means: Means,
    feeds: Mapping[str, Feed],
    slots: FairSlots,
    outcomes: Outcomes,
    links: Links,
    presigner: Presigner,
    notices: Notices,
    refusals: Refusals,
) -> Pipeline:
    return Pipeline(
        feeds,
        means.ledger,
        presigner,
        means.uploader(),
        means.contents(),
        means.archivers,
        slots,
        outcomes,
        Ports(links.look, links.due, partial(still_there, means.readers)),
        notices,
        refusals,
        wall=time.time,
        random=random.random,
        steady=steady,
    )


def _roster(
    means: Means, feeds: dict[str, Feed], inbox: Inbox, dispatcher: Dispatcher, gates: Gates, links: Links
) -> Roster[Intake]:
    make_intake = partial(_intake, means.settings, inbox, others_of(means.ledger), links)
    links.intakes |= {feed.name: make_intake(feed) for feed in feeds.values()}
    return Roster(feeds, links.intakes, make_intake, dispatcher, gates, changed=links.changed, forget=links.forget)


def _housekeeper(means: Means, feeds: Mapping[str, Feed], refusals: Refusals) -> Housekeeper:
    return Housekeeper(
        feeds,
        means.ledger,
        refusals.set_aside_leftovers,
        means.chores,
        wall=time.time,
        history_keep=means.settings.ledger.history_keep,
    )


def _dispatcher(
    means: Means,
    feeds: Mapping[str, Feed],
    slots: FairSlots,
    gates: Gates,
    links: Links,
    pipeline: Pipeline,
    pauses: Pauses,
) -> Dispatcher:
    return Dispatcher(
        means.ledger,
        feeds,
        gates,
        pipeline.deliver,
        slots=lambda: slots.soon,
        slots_of=slots.most_of,
        wall=time.time,
        steady=steady,
        paused=pauses,
        hooks=Hooks(front=links.front, held=links.held, ended=links.changed.set, given_up=means.ledger.give_up),
    )


def _share(feeds: Mapping[str, Feed], name: str) -> Share:
    """A feed's share of the slots; one that is not served any more has no limit for what it still sends."""
    feed = feeds.get(name)
    return Share(feed.concurrency, feed.priority) if feed else Share(0, 0)


def _intake(settings: Settings, inbox: Inbox, others: Others, links: Links, feed: Feed) -> Intake:
    return Intake(
        feed,
        inbox,
        IntakeHooks(
            queued=links.queued,
            trouble=links.trouble(feed.name),
            recovered=links.recovered(feed.name),
            delivering=links.delivering,
            holds=inbox.can_hold(feed.name),
        ),
        rescan=settings.watch.rescan,
        polling=settings.watch.polling,
        clock=time.time,
        others=others if feed.shared else NOBODY,
    )
