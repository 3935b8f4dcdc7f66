"""How a daemon joins the fleet of its ledger, where that has one."""

import asyncio
import socket
from collections.abc import Mapping, Sequence

from tablefeed.clock import steady
from tablefeed.config import Settings
from tablefeed.dispatch import Dispatcher
from tablefeed.fleet import Fleet
from tablefeed.ledger import Ledger
from tablefeed.ledger.engine import sqlite_file
from tablefeed.ledger.listener import Listener
from tablefeed.ledger.member import Member
from tablefeed.ledger.messages import Look, Message, PausesChanged, Queued
from tablefeed.ledger.shared import SharedConnection
from tablefeed.links import Links
from tablefeed.means import Means
from tablefeed.model import Feed
from tablefeed.obstacles import Obstacles
from tablefeed.others import Others
from tablefeed.pauses import Pauses


def member_of(settings: Settings) -> Member | None:
    """This daemon's part in a fleet; None: there is none."""
    name = node_of(settings)
    return Member(name, settings.fleet.lease, steady) if name else None


def node_of(settings: Settings) -> str:
    """What a daemon with these settings is called in its fleet; empty: there is none."""
    if sqlite_file(settings.ledger.url) is not None:
        return ""
    return settings.fleet.node or socket.gethostname()


def shared_of(settings: Settings) -> SharedConnection | None:
    """What a node asks its ledger on and hears others by; None: there is no fleet."""
    name = node_of(settings)
    return SharedConnection(settings.ledger.url, name) if name else None


async def know(ledger: Ledger, feeds: Sequence[Feed]) -> None:
    """Let the ledger keep what happens to these feeds from now on."""
    shared = [feed for feed in feeds if feed.shared]
    told = [feed.name for feed in shared if feed.notify_url]
    await ledger.know([feed.name for feed in feeds], [feed.name for feed in shared], told)


def others_of(ledger: Ledger) -> Others:
    """The nodes that have the directories of shared feeds as well."""

    async def look(feed: str, paths: Sequence[str]) -> None:
        await ledger.tell(Look(feed, tuple(paths)))

    return Others(ledger.may_scan, look, ledger.leave_scan, ledger.last_found, ledger.scans)


def make_listener(means: Means, dispatcher: Dispatcher, links: Links, pauses: Pauses) -> Listener | None:
    """What hears other nodes; None where there are none."""
    ledger = means.ledger
    if means.shared is None:
        return None

    def heard(message: Message) -> None:
        match message:
            case Queued(feed):
                dispatcher.wake(feed)
            case Look(feed, paths):
                if ledger.scans(feed):
                    for path in paths or ("",):
                        links.look(feed, path)
            case PausesChanged():
                pauses.hint()

    def deaf() -> None:
        pauses.hint()
        for feed in links.intakes:
            dispatcher.wake(feed)

    return Listener(means.shared, heard=heard, deaf=deaf, sleep=asyncio.sleep)


def make_fleet(
    means: Means,
    feeds: Mapping[str, Feed],
    dispatcher: Dispatcher,
    links: Links,
    pauses: Pauses,
    obstacles: Obstacles,
) -> Fleet | None:
    """What this daemon knows of others; None where its ledger is its alone."""
    settings = means.settings
    if not means.ledger.node:
        return None

    def came_free() -> None:
        for feed in feeds.values():
            if feed.shared:
                dispatcher.wake(feed.name)
                links.look(feed.name, "")  # the one that is over may have been the one that looked
                links.told(feed.name)

    def counted(nodes: int) -> None:
        most = settings.fleet.api_concurrency
        means.calls.change(max(1, most // max(1, nodes)) if most else settings.api.concurrency)

    return Fleet(
        means.ledger,
        means.ledger.node,
        settings.fleet.lease,
        sleep=asyncio.sleep,
        lost=lambda: dispatcher.cut_off(means.ledger.is_ours),
        came_free=came_free,
        counted=counted,
        beaten=pauses.hint,
        troubles=lambda: obstacles.for_others(feeds),
    )
