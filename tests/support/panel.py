"""What is offered over HTTP, without a daemon behind it."""

from dataclasses import replace
from typing import Any

from tablefeed.errors import Fatal, LedgerUnusable
from tablefeed.ledger.glance import Wanted
from tablefeed.ledger.records import Page
from tablefeed.metrics import Page as Exposition
from tablefeed.recovery import Choice, Outcome, Returned
from tablefeed.status import FeedStatus, Snapshot
from tablefeed.units import parse_rate

TOKEN = "a-token-that-nobody-guesses"


class FakePanel:
    """Tells what a test has set, and notes what it was asked to change."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.token_now: str | Fatal | None = TOKEN
        self.changed: list[tuple[str, Any]] = []
        self.wanted: list[tuple[Wanted, int]] = []
        self.page = Page([], None, complete=True)
        self.picture = Snapshot("1.0", "here", 1, 2_000, 1_000)
        self.looks = 0
        self.ailing: list[str] = []
        self.unwritable: LedgerUnusable | None = None

    async def ailments(self) -> list[str]:
        return self.ailing

    async def metrics(self, _accept: str, _accept_encoding: str) -> Exposition:
        return Exposition(b"", {})

    async def problems(self) -> list[str]:
        return self.said

    async def snapshot(self) -> Snapshot:
        self.looks += 1
        now = self.picture.now + 1_000
        self.picture = replace(self.picture, now=now, fleet=replace(self.picture.fleet, now=now))
        return self.picture

    async def history(self, wanted: Wanted, limit: int) -> Page:
        self.wanted.append((wanted, limit))
        return self.page

    @property
    def may_change(self) -> bool:
        return self.token_now is not None

    async def token(self) -> str:
        if isinstance(self.token_now, str):
            return self.token_now
        raise self.token_now or Fatal("no token", "set one")

    def has_feed(self, feed: str) -> bool:
        return feed == "orders"

    async def pause(self, feed: str) -> None:
        if self.unwritable:
            raise self.unwritable
        self.changed.append(("pause", feed))

    async def resume(self, feed: str) -> None:
        if self.unwritable:
            raise self.unwritable
        self.changed.append(("resume", feed))

    async def retry(self, choice: Choice) -> Outcome:
        self.changed.append(("retry", choice))
        return Outcome([Returned(7, "orders", "a.csv"), Returned(8, "orders", "b\udcff.csv", "b is there again")], 8)

    def limit_bandwidth(self, rate: float | None) -> None:
        if rate is not None and rate < parse_rate("1KiB/s"):
            raise ValueError("is too slow")
        self.changed.append(("limit", rate))

    def release_bandwidth(self) -> None:
        self.changed.append(("release", None))

    def feeds(self, *feeds: FeedStatus) -> None:
        """Show these."""
        self.picture = replace(self.picture, feeds=feeds)
