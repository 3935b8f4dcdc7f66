"""Puts together what tells people of what happens elsewhere than in the log: webhooks, and the alarm behind them."""

import asyncio
import random
import time
from collections.abc import Mapping

from tablefeed.announce import Announcer
from tablefeed.clock import steady
from tablefeed.freshness import Freshness
from tablefeed.ledger import Ledger
from tablefeed.links import Links
from tablefeed.model import Feed
from tablefeed.notices import Notices
from tablefeed.notify import Sender
from tablefeed.receiver import Means, Post, Secret


class Alerts:
    """Makes them."""

    def __init__(self, feeds: Mapping[str, Feed], ledger: Ledger, notices: Notices, links: Links) -> None:
        """`feeds` are those that are served at any time."""
        self._feeds = feeds
        self._ledger = ledger
        self._notices = notices
        self._links = links
        self.announcer = Announcer(feeds, ledger.outbox, notices, links.told)

    def webhooks(self, post: Post, secrets: Mapping[str, Secret], *, slots: int, keep: float) -> Sender:
        """What tells webhooks, up to `slots` at a time; `keep` in seconds, as the history is kept."""
        means = Means(
            outbox=self._ledger.outbox,
            post=post,
            secrets=secrets,
            feeds=self._feeds,
            slots=asyncio.Semaphore(slots),
            wall=time.time,
            steady=steady,
            sleep=asyncio.sleep,
            random=random.random,
        )
        return Sender(means, self.announcer, keep=keep)

    def freshness(self) -> Freshness:
        """The alarm that nothing arrives."""
        links = self._links
        return Freshness(
            self._feeds,
            self._ledger,
            self._notices,
            scanned=links.scanned,
            told=links.told,
            wall=time.time,
            steady=steady,
        )
